"""All kinds of process pools: what ended in a worker has arrived, however the worker ended."""

from __future__ import annotations

import argparse
import signal
import sys
from collections import Counter
from collections.abc import Sequence

import pytest

from .program import Program, run
from .receiver import Receiver

PART = 50
"""The number of pools of one parent process, if many are run by hand."""
RUN = (sys.executable, "-m", "otel_progress.cli", "run", "--", sys.executable)
pytestmark = pytest.mark.skipif(not hasattr(signal, "sigtimedwait"), reason="run works on Linux only")


def pools(seed: int, count: int, how: str, protocol: str, timeout: float, **env: str) -> dict[str, object]:
    """Run a number of pools under `otel-progress run`; return what was done, and what was lost or certified."""
    with (
        Receiver(protocol) as receiver,
        Program("pools", seed, count, how, env={**receiver.env, **env}, command=RUN) as program,
    ):
        code = program.wait(timeout)
        assert code == 0, program.errors[-3000:]
        done = {words[1]: tuple(words[2:]) for words in program.said if words[0] == "done"}
        ended = Counter(
            (log.operation, log.attributes["progress.status"]) for log in receiver.of("progress.operation.ended")
        )
        told = {operation for operation, status in ended if status == "completed"}
        certified = {operation for operation, status in ended if status == "lost"}
        return {
            "done": len(done),
            "lost": [(key, done[key]) for key in done if key not in told],
            "certified": [(key, done[key]) for key in done if key in certified],
            "left running": len(certified),
            "spans": len({span.attributes["progress.operation.id"] for span in receiver.spans} & done.keys()),
            "errors": program.errors[-2000:],
        }


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("how", "protocol"), [("bare", "http/protobuf"), ("parent", "http/protobuf")])
def test_what_ended_in_a_pool_arrives(how: str, protocol: str) -> None:
    """A pool that is terminated as soon as its results arrive loses no end, and nothing that ended is certified."""
    found = pools(7, 12, how, protocol, 280, STRESS_HAND_OVER="10")
    assert found["done"]
    assert (found["lost"], found["certified"]) == ([], []), found


@pytest.mark.timeout(120)
def test_pools_without_a_collector_are_not_held() -> None:
    """If nothing listens, a pool ends as without telemetry: no worker waits for what cannot be sent."""
    with Receiver(listening=False) as receiver:
        program = run("pools", 3, 4, "parent", env=receiver.env)
        assert any(words[0] == "done" for words in program.said)


STATES = {
    "ended": {-signal.SIGTERM},
    "twice": {-signal.SIGTERM},
    "native": {-signal.SIGTERM, -signal.SIGKILL},
    "inside-native": {-signal.SIGTERM},
    "theirs-before": {5},
    "theirs-after": {5},
    "executes": {-signal.SIGTERM},
    "grandchild": {-signal.SIGTERM},
    "loop": {-signal.SIGTERM},
}


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("state", STATES)
def test_a_child_that_is_terminated_ends(state: str, method: str) -> None:
    """SIGTERM ends a child in any state, what ended in it has arrived, and the user's handlers stay."""
    with Receiver() as receiver:
        program = run("terminated", state, method, env=receiver.env)
        assert {int(words[1]) for words in program.said if words[0] == "code"} <= STATES[state], program.said
        if state not in ("inside-native", "loop", "executes"):
            assert receiver.ended() == {"ended": "completed"}
        assert (["theirs"] in program.said) == state.startswith("theirs")
        if state == "grandchild":
            assert ["inherited", "False"] in program.said
            assert ["lives"] in program.said


def test_a_child_whose_receiver_hangs_ends() -> None:
    """A receiver that never answers delays the end of a child only briefly."""
    with Receiver() as receiver:
        receiver.fail(0)
        program = run("terminated", "ended", "fork", env=receiver.env)
        assert ["code", str(-signal.SIGTERM)] in program.said


def main(argv: Sequence[str] | None = None) -> None:
    """Run many pools by hand: `python -m tests.stress.test_pools 1000`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--protocol", default="http/protobuf")
    given = parser.parse_args(argv)
    for seed in range(given.seed, given.seed + (given.count + PART - 1) // PART):
        how = ("bare", "parent")[seed % 2]
        print(seed, how, pools(seed, PART, how, given.protocol, 3600), flush=True)


if __name__ == "__main__":
    main()
