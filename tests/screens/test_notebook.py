"""Real notebooks: each cell shows what it ran, while it runs and when it is opened again."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HOSTILE = "<script>alert(1)</script> *bold* `code` [x](javascript:1)"
CELLS = {
    "start": """
import asyncio, multiprocessing, os, signal, threading, time
import otel_progress as progress
from otel_progress.handlers.notebook import NotebookHandler
handler = NotebookHandler().start()
""",
    "stages": f"""
with progress.operation({HOSTILE!r}, total=30, unit="file"):
    with progress.stage("parse"):
        progress.advance(15)
    with progress.stage("load", total=15):
        for _ in range(15):
            progress.advance(1)
            time.sleep(0.1)
""",
    "thread": """
def work():
    with progress.operation("in a thread", total=4):
        for _ in range(4):
            progress.advance(1)
            time.sleep(0.5)
thread = threading.Thread(target=work)
thread.start()
time.sleep(0.6)
""",
    "next": """
with progress.operation("beside it"):
    thread.join()
""",
    "tasks": """
async def task(number):
    with progress.operation(f"task {number}", total=2):
        progress.advance(2)
        await asyncio.sleep(0.01)
late = asyncio.create_task(task(3))
await asyncio.gather(task(1), task(2))
""",
    "idle": "pass",
    "fails": """
with progress.operation("import"):
    with progress.operation("part", total=3):
        progress.advance(1)
        raise OSError("no such folder")
""",
    "stuck": """
with progress.operation("waits for a lock", stall_after=0.5):
    time.sleep(2.5)
    last = "the line"
""",
    "many": """
began = time.monotonic()
for number in range(10_000):
    operation = progress.operation("one of many").start()
    operation.fail("broken") if number in (17, 9_000) else operation.complete()
""",
    "fork": """
def child():
    with progress.operation("in the child"):
        time.sleep(0.7)
process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join()
process.exitcode
""",
    "again": """
with NotebookHandler(), progress.operation("in a block"):
    pass
handler = NotebookHandler().start()
""",
    "hangs": """
threading.Timer(0.6, os.kill, (os.getpid(), signal.SIGINT)).start()
with progress.operation("hangs"):
    time.sleep(100)
""",
    "stop": "handler.stop()",
}
NAMES = list(CELLS)


@pytest.fixture(scope="module")
def done(ask: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Execute all cells once; the last but one is interrupted."""
    path = tmp_path_factory.mktemp("notebook") / "done.ipynb"
    answer = ask("execute.py", {"cells": list(CELLS.values()), "path": str(path)})
    return {**answer, "path": path}


def outputs(done: dict[str, Any], name: str, kind: str = "display_data") -> list[Any]:
    """The outputs of one kind of a cell."""
    return [one for one in done["outputs"][NAMES.index(name)] if one["output_type"] == kind]


def text(done: dict[str, Any], name: str) -> str:
    """The plain text of the panel of a cell."""
    (panel,) = outputs(done, name)
    return str(panel["data"]["text/plain"])


def test_one_panel_for_each_cell_that_works(done: dict[str, Any]) -> None:
    """A cell has one display with HTML and text beside it; one that runs no operation has none, and no cell a stream."""
    without = {"start", "idle", "fork", "stop"}
    for name in NAMES:
        assert len(outputs(done, name)) == (name not in without), name
        assert outputs(done, name, "stream") == []
    (panel,) = outputs(done, "stages")
    assert set(panel["data"]) == {"text/html", "text/plain"}


def test_the_end_is_in_the_saved_notebook(done: dict[str, Any]) -> None:
    """What stays is the summary, with stages; no line says as of when."""
    said = text(done, "stages")
    assert said.startswith(f"✓ {HOSTILE} completed after ")
    assert "parse" in said
    assert "load" in said
    assert "as of" not in said


def test_texts_of_users_are_escaped(done: dict[str, Any]) -> None:
    """A name can neither start a script nor a tag."""
    (panel,) = outputs(done, "stages")
    shown = panel["data"]["text/html"]
    assert "&lt;script&gt;alert(1)&lt;/script&gt; *bold* `code`" in shown
    assert "<script" not in shown


def test_a_thread_that_outlives_its_cell(done: dict[str, Any]) -> None:
    """Its panel stays below the cell that started it, and is brought up to date there while another cell runs."""
    assert text(done, "thread").startswith("✓ in a thread completed after 2")
    assert "in a thread" not in text(done, "next")
    assert "beside it completed" in text(done, "next")


def test_tasks(done: dict[str, Any]) -> None:
    """Two tasks at once share a panel; one that starts later in a task of the cell is there, too."""
    said = text(done, "tasks")
    assert all(f"task {number} completed" in said for number in (1, 2, 3))


def test_a_cell_that_fails(done: dict[str, Any]) -> None:
    """The error of the cell is its own, and the panel says what failed; a child that failed keeps a line."""
    assert outputs(done, "fails", "error")[0]["ename"] == "OSError"
    said = text(done, "fails")
    assert "✗ import failed" in said
    assert "part: failed" in said
    assert said.count("no such folder") == 2


def test_trouble_and_where(done: dict[str, Any]) -> None:
    """A stall keeps its line, with the line of the cell that hangs."""
    said = text(done, "stuck")
    assert "STUCK no progress for" in said
    assert f"at In[{NAMES.index('stuck') + 1}] line 2 in <module>" in said
    assert "✓ waits for a lock completed" in said


def test_many_operations(done: dict[str, Any]) -> None:
    """Of 10,000 operations those that failed keep a line, all are counted, and no message is large."""
    said = text(done, "many")
    assert said.count("failed after") == 2
    assert "10,000 ended: 9,998 completed, 2 failed" in said
    assert max(one["size"] for one in done["seen"]) < 150_000


def test_a_fork_shows_nothing(done: dict[str, Any]) -> None:
    """A forked child draws on no display of its parent, and ends well."""
    assert outputs(done, "fork", "execute_result")[0]["data"]["text/plain"] == "0"


def test_a_handler_of_a_block_uses_the_one_that_runs(done: dict[str, Any]) -> None:
    """With a handler running, a block shows its operation once, and leaves the handler running."""
    assert text(done, "again").count("in a block completed") == 1
    assert "hangs" in text(done, "hangs")


def test_an_interrupted_cell(done: dict[str, Any]) -> None:
    """An interrupt ends the operation, and its panel says so."""
    assert outputs(done, "hangs", "error")[0]["ename"] == "KeyboardInterrupt"
    assert "as of" not in text(done, "hangs")
    assert "✓" not in text(done, "hangs")


def test_few_updates(done: dict[str, Any]) -> None:
    """A display is updated a few times a second at most."""
    times: dict[str, list[float]] = defaultdict(list)
    for one in done["seen"]:
        times[one["id"]].append(one["at"])
    for seen in times.values():
        assert len(seen) <= 3 * (seen[-1] - seen[0]) + 3


def test_the_saved_notebook_in_a_browser(done: dict[str, Any], python: Path, browser: Any, tmp_path: Path) -> None:
    """Converted to a page it shows the panels, runs no script of a name, and fits a phone."""
    page_file = tmp_path / "done.html"
    command = [python, "-m", "nbconvert", "--to", "html", str(done["path"]), "--output", str(page_file)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    for width in (1000, 390):
        context = browser.new_context(viewport={"width": width, "height": 900})
        page = context.new_page()
        dialogs: list[str] = []
        page.on("dialog", lambda dialog, dialogs=dialogs: (dialogs.append(dialog.message), dialog.dismiss()))
        page.goto(page_file.as_uri(), wait_until="domcontentloaded")
        panel = page.locator(".jp-OutputArea-output", has_text="<script>alert(1)</script>").first
        panel.wait_for()
        assert panel.bounding_box()["width"] <= width
        assert dialogs == []
        context.close()


def test_a_kernel_that_is_killed(ask: Callable[..., Any]) -> None:
    """The notebook tells what was known last, and as of when."""
    killed = """
with progress.operation("import", total=10):
    progress.advance(4)
    time.sleep(1.6)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    answer = ask("execute.py", {"cells": [CELLS["start"], killed]})
    assert answer["dead"]
    (panel,) = answer["outputs"][1]
    assert "4/10" in panel["data"]["text/plain"]
    assert "as of " in panel["data"]["text/plain"]
