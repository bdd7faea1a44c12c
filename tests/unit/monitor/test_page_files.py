"""The files of the page: read from disk once, and otherwise served as any file is."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from otel_progress.monitor.web.page_files import PageFiles


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "parts").mkdir()
    (tmp_path / "app.js").write_text("export const one = 1;")
    (tmp_path / "parts" / "style.css").write_text("a { color: red }")
    return tmp_path


@pytest.fixture
def client(folder: Path) -> TestClient:
    return TestClient(Starlette(routes=[Mount("/static", PageFiles(folder))]))


def test_a_file_is_read_once(folder: Path, client: TestClient) -> None:
    first = client.get("/static/app.js")
    (folder / "app.js").unlink()
    again = client.get("/static/app.js")
    assert first.text == again.text == "export const one = 1;"
    assert first.headers == again.headers
    assert again.headers["content-type"].startswith("text/javascript")
    assert client.get("/static/parts/style.css").headers["content-type"].startswith("text/css")


def test_a_browser_that_has_it_gets_nothing_again(client: TestClient) -> None:
    etag = client.get("/static/app.js").headers["etag"]
    same = client.get("/static/app.js", headers={"If-None-Match": etag})
    assert (same.status_code, same.content) == (304, b"")
    other = client.get("/static/app.js", headers={"If-None-Match": '"another"'})
    assert (other.status_code, other.text) == (200, "export const one = 1;")


def test_what_is_no_file_of_the_folder_is_refused(folder: Path, client: TestClient) -> None:
    (folder.parent / "secret.txt").write_text("secret")
    for path in ("nothing.js", "parts", "%2e%2e/secret.txt", "..%2fsecret.txt"):
        assert client.get(f"/static/{path}").status_code == 404, path
    client.get("/static/app.js")
    assert client.post("/static/app.js").status_code == 405
    assert client.head("/static/app.js").content == b""
