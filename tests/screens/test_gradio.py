"""Gradio: the progress of event listeners, in a real browser on a real server."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).parent / "programs" / "questions.py"
EXAMPLE = Path(__file__).parents[2] / "examples" / "gradio_app.py"
NAMES = ("import <script>alert(1)</script> *x*", "export", "without total")


def ask(page: Any, address: str, question: str) -> None:
    """Send a question."""
    page.set_default_timeout(30_000)
    page.goto(address)
    page.get_by_role("textbox").first.fill(question)
    page.get_by_role("button", name="Submit").click()


def test_three_users_at_once(serve: Callable[..., str], browser: Any, tmp_path: Path) -> None:
    """Each sees the progress of their own operation, as plain text, also without a total; then the answer."""
    address = serve("gradio", PROGRAM, GO=str(tmp_path / "go"))
    pages = [browser.new_page() for _ in NAMES]
    dialogs: list[str] = []
    for page, name in zip(pages, NAMES):
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        ask(page, address, name)
    for page, name in zip(pages, NAMES):
        page.get_by_text(re.compile(rf"{re.escape(name)}: 15")).first.wait_for()
        said = page.inner_text("body")
        assert ("15/30 steps" in said) is (name != "without total")
        assert not any(f"{other}: " in said for other in NAMES if other != name)
    (tmp_path / "go").touch()
    for page in pages:
        page.wait_for_function("document.querySelectorAll('textarea')[1].value == 'done'")
        page.close()
    assert dialogs == []


def test_the_example(serve: Callable[..., str], browser: Any) -> None:
    """The example shows its documents, and answers."""
    page = browser.new_page()
    ask(page, serve("gradio", EXAMPLE), "why")
    page.get_by_text("/20 documents").first.wait_for()
    page.wait_for_function("document.querySelectorAll('textarea')[1].value == 'why: 42'")
    page.close()
