"""Draw docs/handlers/*.png: the examples for notebooks, Streamlit and Gradio in a browser, while they run.

python tools/screen_pictures.py [FOLDER]    needs `make test-screens` once, and Chromium at /usr/bin/chromium
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

from playwright.sync_api import Page, sync_playwright

HERE = Path(__file__).parent.parent
PYTHON = HERE / ".venv" / "screens" / "bin" / "python"
QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "STREAMLIT_BROWSER_GATHER_USAGE_STATS": "false"}
SHRINK = """
import io, sys
from PIL import Image
picture = Image.open(io.BytesIO(sys.stdin.buffer.read())).convert("RGB")
picture.quantize(128, dither=Image.Dither.NONE).save(sys.argv[1], optimize=True)
"""


@contextlib.contextmanager
def serving(*command: str) -> Iterator[str]:
    """Start a server on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    variables = {"GRADIO_SERVER_PORT": port, "STREAMLIT_SERVER_PORT": port, "STREAMLIT_SERVER_HEADLESS": "true"}
    process = subprocess.Popen([PYTHON, *command], env={**os.environ, **QUIET, **variables}, stdout=subprocess.DEVNULL)
    try:
        for _ in range(300):
            with contextlib.suppress(OSError), urlopen(f"http://127.0.0.1:{port}/", timeout=5):
                break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def keep(page: Page, path: Path) -> None:
    """Save a picture with few colours."""
    command = [PYTHON, "-c", SHRINK, str(path)]
    subprocess.run(command, input=page.screenshot(), check=True)
    print(f"{path}: {path.stat().st_size:,} bytes")


def notebook(page: Page, path: Path, folder: Path) -> None:
    """The notebook as it is saved while its last cell still works."""
    options = ["--to", "html", "--execute", "--output", str(folder / "notebook.html")]
    source = json.loads((HERE / "examples" / "notebook.ipynb").read_text(encoding="utf-8"))
    (folder / "notebook.ipynb").write_text(json.dumps(source), encoding="utf-8")
    subprocess.run([PYTHON, "-m", "nbconvert", str(folder / "notebook.ipynb"), *options], check=True)
    page.set_viewport_size({"width": 900, "height": 740})
    page.goto((folder / "notebook.html").as_uri(), wait_until="domcontentloaded")
    page.wait_for_timeout(500)
    keep(page, path)


def main() -> None:
    """Take the three pictures."""
    into = Path(sys.argv[1]) if sys.argv[1:] else HERE / "docs" / "handlers"
    into.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 760, "height": 560})
        page.set_default_timeout(60_000)
        with serving("-m", "streamlit", "run", "examples/streamlit_app.py") as address:
            page.goto(address)
            page.get_by_role("button", name="Start in the background").click()
            page.get_by_text("/40 files").first.wait_for()
            page.wait_for_timeout(1500)
            keep(page, into / "streamlit.png")
        page.set_viewport_size({"width": 900, "height": 230})
        with serving("examples/gradio_app.py") as address:
            page.goto(address)
            page.get_by_role("textbox").first.fill("why")
            page.get_by_role("button", name="Submit").click()
            page.get_by_text("/20 documents").first.wait_for()
            page.wait_for_timeout(1200)
            keep(page, into / "gradio.png")
        notebook(page, into / "notebook.png", Path(folder))
        browser.close()


if __name__ == "__main__":
    main()
