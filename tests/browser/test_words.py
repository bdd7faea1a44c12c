"""The page's words: durations, counts, sizes and rates as the terminal says them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="run `pip install playwright`")

CASES = json.loads((Path(__file__).parents[1] / "words.json").read_text(encoding="utf-8"))
SAID = """async (cases) => {
    const { duration, forecast, lasting, left, money, number, percent, plural, rate, remaining, size, spelled, unforeseen } = await import("/static/words.js");
    const whole = (ratio) => `${percent({ progress: { ratio } })}%`;
    const time_left = (progress, later) => left({ id: JSON.stringify([progress, later]), status: progress.status ?? "running", wait: progress.status === "waiting" ? {} : null, timestamp: 0, progress }, later);
    const said = { time_left, duration, lasting, spelled, percent: whole, count: number, money, size, rate, plural, left: forecast, remaining, unforeseen };
    const row = (name, given) => [...given.slice(0, -1), said[name](...given.slice(0, -1))];
    return Object.fromEntries(Object.entries(cases).map(([name, rows]) => [name, rows.map((given) => row(name, given))]));
}"""


def test_words_are_those_of_the_terminal(open_page):
    """Each shared case has the text that `otel_progress.model.units` gives for it."""
    assert open_page().evaluate(SAID, CASES) == CASES
