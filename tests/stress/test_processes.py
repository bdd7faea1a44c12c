"""Child processes of every kind: each is a process of its own, and all parts of one work are one trace."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise
from typing import Any

import pytest

from .program import Program, exit_seconds, run
from .receiver import Receiver
from .test_ends import LATEST

PROTOCOLS = ("http/protobuf", "grpc")
METHODS = ("fork", "spawn", "forkserver")


def instances(receiver: Receiver, prefix: str) -> dict[str, set[str]]:
    """Return the instances that reported operations whose id begins like this."""
    found: dict[str, set[str]] = defaultdict(set)
    for log in list(receiver.logs):
        if log.operation.startswith(prefix):
            found[log.resource["service.instance.id"]].add(log.operation)
    return found


def check_counts(receiver: Receiver) -> None:
    """No instance counts operations that it did not run."""
    for instance, operations in instances(receiver, "").items():
        counted: dict[Any, float] = defaultdict(float)
        for point in receiver.points:
            if point.name == "progress.operation.started" and point.resource["service.instance.id"] == instance:
                name = point.attributes["progress.operation.name"]
                counted[name] = max(counted[name], point.value)
        assert sum(counted.values()) <= len(operations), (instance, dict(counted), len(operations))


@pytest.mark.parametrize("what", ["end", "exit"])
@pytest.mark.parametrize("method", METHODS)
def test_children_of_multiprocessing_flush_by_themselves(method: str, what: str) -> None:
    """A child of multiprocessing sends everything before it ends, under an id of its own, as a part of its parent."""
    with Receiver() as receiver:
        program = run("children", method, what, env=receiver.env)
        assert program.said[-3] == ["codes", "0", "0", "0", "0"]
        check_parts(receiver)


@pytest.mark.parametrize("method", ["pool-fork", "pool-spawn"])
def test_pool_of_processes_flushes_by_itself(method: str) -> None:
    """So do the processes of a ProcessPoolExecutor."""
    with Receiver("grpc" if method == "pool-spawn" else "http/protobuf") as receiver:
        run("children", method, "end", env=receiver.env)
        check_parts(receiver)


def check_parts(receiver: Receiver) -> None:
    """The whole and its parts are one trace, and each was reported by its own process."""
    parts = [f"part-{number}" for number in range(4)]
    assert receiver.ended() == dict.fromkeys(["whole", *parts], "completed")
    assert receiver.doubled() == []
    spans = {(span.name, span.attributes["progress.operation.id"]): span for span in receiver.spans}
    whole = spans["whole", "whole"]
    for part in parts:
        assert spans["part", part].parent_id == whole.span_id
        assert spans["part", part].trace_id == whole.trace_id
        assert spans["inside", part].trace_id == whole.trace_id
    starts = {log.operation: log for log in receiver.of("progress.operation.started")}
    for part in parts:
        assert starts[part].attributes["progress.operation.parent.id"] == "whole"
        assert starts[part].trace_id == whole.trace_id
        assert starts[part].resource["service.instance.id"] != starts["whole"].resource["service.instance.id"]
        assert spans["part", part].resource["service.instance.id"] == starts[part].resource["service.instance.id"]
    check_counts(receiver)


@pytest.mark.parametrize("method", METHODS)
def test_terminated_child_loses_at_most_the_last_second(method: str) -> None:
    """A terminated child has sent everything reported up to 1 s before."""
    with Receiver() as receiver, Program("children", method, "terminate", env=receiver.env) as program:
        program.line("ready")
        receiver.wait_for(lambda: len({log.operation for log in receiver.of("progress.note")}) == 4)
        program.tell()
        killed = float(program.line("killed")[1])
        program.finish()
        said: dict[str, int] = defaultdict(int)
        for words in program.said:
            if words[0] == "said" and len(words) == 4 and float(words[1]) < killed - LATEST:
                said[f"part-{words[2]}"] = int(words[3])
        for part, number in said.items():
            notes = {
                log.attributes["progress.note.text"] for log in receiver.of("progress.note") if log.operation == part
            }
            assert notes >= {f"note {n}" for n in range(1, number + 1)}


@pytest.mark.parametrize("how", ["exit", "os_exit"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_forks_under_load(protocol: str, how: str) -> None:
    """Fifty forks while threads work and the sender sends: no child hangs or repeats, and the parent goes on."""
    count = 50 if how == "exit" and protocol != "grpc" else 30
    with Receiver(protocol) as receiver:
        program = run("forks", how, count, env=receiver.env)
        values = program.values()
        assert values["codes"] == "0"
        assert ["codes", "0"] in program.said
        assert float(values["slowest"]) < 1.0
        assert program.held() < exit_seconds()
        ended = receiver.ended()
        late = {"parent", "after"} - ended.keys()  # as below
        assert not late or "could not be sent" in program.errors, late
        assert all(ended.get(name, "completed") == "completed" for name in ("parent", "after"))
        children = instances(receiver, "child-")
        owners = Counter(owner for operations in instances(receiver, "").values() for owner in operations if owner)
        assert max(owners.values()) == 1, "a child told of an operation of its parent"
        if protocol != "grpc":
            # With gRPC a fork may interrupt a request, which is then sent again.
            assert receiver.doubled() == []
        assert all(len(operations) == 1 for operations in children.values()), "two children under one instance id"
        if how == "exit":
            every = {f"child-{number}" for number in range(count)}
            unsaid = every - ended.keys()  # on a busy machine the 2 s of an exit may be too short, which is then logged
            assert len(unsaid) <= program.errors.count("could not be sent"), unsaid
            names = [span.attributes["progress.operation.id"] for span in receiver.spans if span.name == "child"]
            assert len(names) == len(set(names))
            assert every - unsaid <= set(names) <= every
        parents = instances(receiver, "parent")
        assert len(parents) == 1
        assert not parents.keys() & children.keys()
        if "could not be sent" not in program.errors:
            check_counts(receiver)


@pytest.mark.parametrize("master", ["idle", "busy"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_prefork_server(protocol: str, master: str) -> None:
    """Configured in the master, each worker has its own id and counts, sends while it runs, and flushes at its end."""
    with Receiver(protocol) as receiver, Program("prefork", master, env=receiver.env) as program:
        program.line("forked")
        for _ in range(3):
            program.line("worker")
        receiver.wait_for(lambda: all(f"request-{number}-15" in receiver.ended() for number in range(3)), 10)
        receiver.wait_for(lambda: len(user_calls(receiver)) >= 3, 10)
        program.tell()
        program.finish()
        assert program.said[-2] == ["codes", "0", "0", "0"]
        workers = instances(receiver, "request-")
        assert len(workers) == 3
        assert not workers.keys() & instances(receiver, "master").keys()
        for operations in workers.values():
            assert len({operation.split("-")[1] for operation in operations}) == 1
            numbers = sorted(int(operation.split("-")[2]) for operation in operations)
            assert all(b - a == 1 for a, b in pairwise(numbers))
            assert numbers[0] == 1
        assert receiver.doubled() == []
        spans = {span.attributes["progress.operation.id"]: span for span in receiver.spans if span.name == "request"}
        ended = {log.operation: log for log in receiver.of("progress.operation.ended") if log.operation in spans}
        assert len(ended) > 40
        for operation, log in ended.items():
            assert spans[operation].resource["service.instance.id"] == log.resource["service.instance.id"]
        check_counts(receiver)
        for instance, value in user_calls(receiver).items():
            if instance in workers:
                assert value <= len(workers[instance]), "the worker counts what the master did"


def user_calls(receiver: Receiver) -> dict[str, float]:
    """Return the application's own counter, by instance."""
    found: dict[str, float] = {}
    for point in list(receiver.points):
        if point.name == "user.calls":
            instance = point.resource["service.instance.id"]
            found[instance] = max(point.value, found.get(instance, 0))
    return found


@pytest.mark.parametrize("carrier", ["environment", "headers"])
def test_part_in_another_program(carrier: str) -> None:
    """A part in another program, started with environment or headers, is below the stage that ran it, in one trace."""
    with Receiver() as receiver:
        run("whole", carrier, env=receiver.env)
        spans = {span.name: span for span in receiver.spans}
        assert spans["part"].parent_id == spans["elsewhere"].span_id
        assert spans["elsewhere"].parent_id == spans["whole"].span_id
        assert len({span.trace_id for span in receiver.spans}) == 1
        [started] = [log for log in receiver.of("progress.operation.started") if log.operation == "part"]
        assert started.attributes["progress.operation.parent.id"] == "whole"
        assert receiver.ended() == {"whole": "completed", "part": "completed"}
