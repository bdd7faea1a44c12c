"""An agent that plans, calls tools in parallel, waits for a rate limit and for a person, and answers.

Model and tools only sleep; `python examples/agent.py --speed 10` makes them ten times faster.
"""

from __future__ import annotations

import argparse
import asyncio

import otel_progress as progress
from otel_progress.handlers.console import Console

PLAN = (
    progress.StagePlan("think", weight=1, expected=2),
    progress.StagePlan("research", weight=3, expected=5, depends_on=("think",)),
    progress.StagePlan("answer", weight=2, expected=3, depends_on=("research",)),
)
QUESTIONS = ("how it began", "who wrote it", "what changed since", "what is open")
speed = 1.0


async def pause(seconds: float) -> None:
    await asyncio.sleep(seconds / speed)


async def model(prompt: str, answer_tokens: int) -> str:
    """Simulate a language model that answers token by token. Each token counts as a unit."""
    text = []
    for number in range(answer_tokens):
        await pause(0.02)
        text.append(f"word{number}")
        progress.advance()
    progress.usage(input_tokens=len(prompt) * 3, output_tokens=answer_tokens, cost=0.0004 * answer_tokens)
    return " ".join(text)


@progress.operation("tool_call", total=8, unit="page", stall_after=20)
async def search(question: str) -> str:
    """Simulate a tool. It is a child operation, as it could run in another process."""
    progress.update(message=question)
    for _ in progress.track(range(8)):
        await pause(0.1 + 0.02 * len(question))
    if "open" in question:
        raise TimeoutError("the index does not answer")
    return f"what is known of {question}"


async def look_up(question: str) -> str | None:
    try:
        found = await search(question)
    except TimeoutError:
        progress.record("failed", item=question, component="search")
        progress.note(f"goes on without {question!r}", "warning")
        return None
    progress.record("ok", item=question)
    return found


@progress.operation("answer_question", agent="librarian", plan=PLAN, stall_after=15)
async def answer_question(question: str) -> str:
    async with progress.stage("think", total=60, unit="token"):
        await model(question, 60)
    async with progress.stage("research"):
        async with progress.waiting("the tools", overdue_after=60):
            found = await asyncio.gather(*(look_up(part) for part in QUESTIONS))
        async with progress.waiting("the rate limit of the model", overdue_after=30):
            await pause(1.5)
    async with progress.stage("answer", total=100, unit="token"):
        async with progress.waiting("a human lets it answer", overdue_after=60):
            await pause(1)
        text = await model("".join(part or "" for part in found), 100)
    progress.result(words=len(text.split()), sources=sum(part is not None for part in found))
    return text


def main() -> None:
    global speed
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--speed", type=float, default=1.0)
    speed = parser.parse_args().speed
    with Console():
        asyncio.run(answer_question("How did this library come to be?"))


if __name__ == "__main__":
    main()
