"""Streamlit: pages in its own test client, and in a real browser on a real server."""

from __future__ import annotations

import itertools
import re
import textwrap
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from otel_progress.render import words

ROOT = Path(__file__).parents[2]
BEGIN = """
import asyncio, threading, time
import streamlit as st
import otel_progress as progress
from otel_progress.handlers.streamlit import StreamlitHandler, show
"""


SCRIPTS: dict[str, tuple[str, list[str | float]]] = {
    "a_block": (
        """
        with StreamlitHandler(st.container()), progress.operation("import", plan=["scan", "load"]):
            with progress.stage("scan"):
                time.sleep(0.1)
            with progress.stage("load", total=10, unit="file"):
                progress.advance(10)
        """,
        ["run"],
    ),
    "while_it_runs": (
        """
        with StreamlitHandler(), progress.operation("import", plan=["scan", "load", "index"]):
            with progress.stage("scan"):
                pass
            with progress.stage("load", total=10, unit="file"):
                progress.advance(5)
                progress.update(message="file 5.csv")
                time.sleep(1.3)
                st.stop()
        """,
        ["run"],
    ),
    "only_what_belongs_to_the_page": (
        """
        from streamlit.runtime.scriptrunner import add_script_run_ctx
        def work(name):
            with progress.operation(name, total=2):
                progress.advance(2)
        async def task():
            work("a task")
        with StreamlitHandler():
            threads = [
                threading.Thread(target=progress.carry(work), args=("carried",)),
                add_script_run_ctx(threading.Thread(target=work, args=("attached",))),
                threading.Thread(target=work, args=("of another user",)),
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            asyncio.run(task())
        """,
        ["run"],
    ),
    "a_failure_is_shown_and_passes": (
        """
        with StreamlitHandler(), progress.operation("import"):
            with progress.operation("part"):
                raise OSError("no such folder")
        """,
        ["run"],
    ),
    "texts_of_users": (
        """
        bad = "<script>alert(1)</script> *x* :smile: $x$ [l](javascript:1)"
        with StreamlitHandler(), progress.operation(bad, total=5, unit="<b>"):
            with progress.stage("<i>stage"):
                progress.advance(1)
            progress.note("<u>note", status="failed")
        """,
        ["run"],
    ),
    "many_operations": (
        """
        with StreamlitHandler():
            for number in range(2_000):
                operation = progress.operation("one of many").start()
                operation.fail("broken") if number == 17 else operation.complete()
        """,
        ["run"],
    ),
    "wrong_containers_1": (
        """StreamlitHandler("sidebar")""",
        ["run"],
    ),
    "wrong_containers_2": (
        """show(3)""",
        ["run"],
    ),
    "a_job_in_the_background": (
        """
        def work():
            with progress.operation("import", id="job-1", total=20):
                for _ in range(20):
                    progress.advance(1)
                    time.sleep(0.1)
        if "begun" not in st.session_state:
            st.session_state.begun = True
            threading.Thread(target=work).start()
            time.sleep(0.3)
        state = show("job-1", st.sidebar if st.session_state.get("aside") else None)
        """,
        ["run", 1.0, "run", 1.5, "run"],
    ),
    "jobs_that_are_not_found": (
        """
        assert show("<b>nothing") is None
        operation = progress.operation("quick").start()
        operation.fail("no such folder")
        assert show(operation).reason == "no such folder"
        """,
        ["run"],
    ),
    "an_operation_that_nobody_watched": (
        """
        import sys
        if "job" not in st.session_state:
            sys.kept = progress.operation("old").start()
            st.session_state.job = sys.kept.id
        state = show(st.session_state.job)
        sys.kept.complete()
        """,
        ["run", 0.5, "run"],
    ),
}
Pages = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def pages(ask: Callable[..., Any]) -> Pages:
    """Return what the page of each script shows after each of its steps; all scripts run in one process."""
    given = {name: (BEGIN + textwrap.dedent(script), steps) for name, (script, steps) in SCRIPTS.items()}
    shown: Pages = ask("session.py", given)
    for page in itertools.chain.from_iterable(shown.values()):
        page["said"] = unescape(re.sub(r"<[^>]*>", " ", " ".join(page["html"])))
    return shown


def test_a_block(pages: Pages) -> None:
    """The block shows the bar, the status with its icon, the metrics, and the stages with icons; then the script goes on."""
    (page,) = pages["a_block"]
    assert page["errors"] == []
    assert page["bars"] == [100]
    assert page["metrics"]["Stage"] == "2 of 2"
    assert page["metrics"]["Left"] == words.DASH
    assert re.search(r"✓\s+import\s+completed after", page["said"])
    assert re.search(r"✓\s+scan", page["said"])
    assert "10 files" in page["said"]


def test_while_it_runs(pages: Pages) -> None:
    """In the middle of the work the page shows where it is: message, counts, the stages that are done and to come."""
    (page,) = pages["while_it_runs"]
    assert page["errors"] == []
    assert "load" in page["said"]
    assert page["metrics"]["Elapsed"].endswith("s")


def test_only_what_belongs_to_the_page(pages: Pages) -> None:
    """Tasks, carried threads and threads with the script's context belong to the page; others of the process do not."""
    (page,) = pages["only_what_belongs_to_the_page"]
    assert page["errors"] == []
    assert all(name in page["said"] for name in ("a task", "carried", "attached"))
    assert "of another user" not in page["said"]


def test_a_failure_is_shown_and_passes(pages: Pages) -> None:
    """The exception of the work is the script's, and the panel says what failed, also below it."""
    (page,) = pages["a_failure_is_shown_and_passes"]
    assert page["errors"] == ["no such folder"]
    assert re.search(r"✗\s+import\s+failed", page["said"])
    assert "part:" in page["said"]


def test_texts_of_users(pages: Pages) -> None:
    """Neither HTML nor Markdown of a name, a message, a unit or a reason means anything."""
    (page,) = pages["texts_of_users"]
    assert page["errors"] == []
    assert not re.search(r"<(script|b|i|u|s)>", " ".join(page["html"]))
    assert "<script>alert(1)</script> *x* :smile: $x$ [l](javascript:1)" in page["said"]


def test_many_operations(pages: Pages) -> None:
    """Of 2,000 operations ten have a panel; the others are counted, with those that failed."""
    (page,) = pages["many_operations"]
    assert page["errors"] == []
    assert len(page["html"]) <= 20
    assert page["texts"] == ["+ 1,990 more, 1 failed"]


def test_wrong_containers(pages: Pages) -> None:
    """A container that is none is refused where it is given."""
    (page,) = pages["wrong_containers_1"]
    assert "container must be a container of Streamlit" in page["errors"][0]
    (page,) = pages["wrong_containers_2"]
    assert "show() needs an operation or its id" in page["errors"][0]


def test_a_job_in_the_background(pages: Pages) -> None:
    """A job that outlives the script is found by its id in later runs: while it runs, and when it ended."""
    first, later, end = pages["a_job_in_the_background"]
    assert first["errors"] == later["errors"] == end["errors"] == []
    assert first["bars"][0] < later["bars"][0] < end["bars"][0] == 100
    assert "running" in later["said"]
    assert "completed after" in end["said"]


def test_jobs_that_are_not_found(pages: Pages) -> None:
    """An id that is unknown is said to be, in plain text; an operation that ended before is shown by its handle."""
    (page,) = pages["jobs_that_are_not_found"]
    assert page["errors"] == []
    assert "operation <b>nothing is not known in this process" in page["said"]
    assert re.search(r"✗\s+quick\s+failed", page["said"])


def test_an_operation_that_nobody_watched(pages: Pages) -> None:
    """An operation that runs when the first page asks for its id is found, with its end."""
    first, end = pages["an_operation_that_nobody_watched"]
    assert first["errors"] == end["errors"] == []
    assert "running" in first["said"]
    assert "completed after" in end["said"]


def test_the_example_in_a_browser(serve: Callable[..., str], browser: Any) -> None:
    """On a real server the bar moves without a click, the script runs again at the end, and a closed page ends quietly."""
    address = serve("streamlit", ROOT / "examples" / "streamlit_app.py")
    page = browser.new_page()
    page.set_default_timeout(30_000)
    page.goto(address)
    page.get_by_role("button", name="Start in the background").click()
    page.get_by_text("/40 files").wait_for()
    page.get_by_role("button", name="Export while the page waits").click()
    page.get_by_text("/20 rows").wait_for()
    page.get_by_role("button", name="Export while the page waits").click()
    page.get_by_text("/20 rows").wait_for()
    page.get_by_text("All files are there.").wait_for()
    page.get_by_role("button", name="Export while the page waits").click()
    page.get_by_text("/20 rows").wait_for()
    page.close()
