"""What `run` tells the checkpoint stores of its command when a process died."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import otel_progress as progress
from otel_progress.cli.run.deaths import Stores
from otel_progress.durable.holder import this_process
from otel_progress.durable.sqlite import SqliteStore
from otel_progress.durable.store import Claim
from otel_progress.outbound.certificate import Exit

CHILD = replace(this_process(), pid=4_000_000, ticks=1)
"""A process that is gone."""
KILLED = Exit(None, "SIGSEGV")


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the stores of a command, of which a program of it has named `work.db`."""
    monkeypatch.chdir(tmp_path)
    stores = Stores({})
    for name, value in stores.environment({}).items():
        monkeypatch.setenv(name, value)
    for _ in range(2):
        with progress.operation("job", id="job-0", resume="work.db"):
            pass
    yield stores
    stores.close()


def reason(path: Path, operation: str = "job-1") -> str | None:
    found = SqliteStore(path).operation(operation)
    assert found is not None
    return found.reason


def tell(stores: Stores, exit: Exit, said: list[str], pid: int = CHILD.pid) -> None:
    stores.tell(pid, exit, [], None, said.append)  # type: ignore[arg-type] # only losses get remarks


def test_store_that_the_program_opened_is_told(told: Stores, tmp_path: Path) -> None:
    """Without a variable, and without an event: how our own child ended is known."""
    SqliteStore(tmp_path / "work.db").acquire(Claim("job-1", "job", CHILD))
    tell(told, KILLED, said := [], pid=CHILD.pid + 1)
    assert reason(tmp_path / "work.db") is None
    tell(told, KILLED, said)
    assert reason(tmp_path / "work.db") == "SIGSEGV"
    assert reason(tmp_path / "work.db", "job-0") is None
    assert said == []


def test_store_that_the_environment_names_is_told(tmp_path: Path) -> None:
    """Also if no process told us that it uses it."""
    path = tmp_path / "named.db"
    SqliteStore(path).acquire(Claim("job-1", "job", CHILD))
    stores = Stores({"OTEL_PROGRESS_CHECKPOINTS": str(path)})
    tell(stores, Exit(3), [])
    stores.close()
    assert reason(path) == "exit code 3"


def test_store_that_is_gone_or_damaged_is_named(told: Stores, tmp_path: Path) -> None:
    """A missing file is not made again; a damaged one is printed. What is no address is left out."""
    path = tmp_path / "work.db"
    path.unlink()
    tell(told, KILLED, said := [])
    assert not path.exists()
    path.write_bytes(b"no database" * 100)
    file = Path(next(iter(told.environment({}).values())))
    file.write_text(file.read_text() + "no json\n5\n" + '"redis://:hunter2@[bad"\n')
    tell(told, KILLED, said)
    assert "was not told" in said[0]
    assert "work.db is damaged" in said[0] or "work.db was removed or replaced" in said[0]  # if it is still open here
    assert "Redis is invalid" in said[1]
    assert "hunter2" not in "".join(said)
    told.close()
    tell(told, KILLED, [])


def test_success_opens_no_store(told: Stores, tmp_path: Path) -> None:
    """A command that ended well has nothing to tell."""
    SqliteStore(tmp_path / "work.db").acquire(Claim("job-1", "job", CHILD))
    tell(told, Exit(0), [])
    assert reason(tmp_path / "work.db") is None
