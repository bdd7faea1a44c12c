"""The build of the programs that tests run against: what it takes from a module, and what it reports if it fails."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
import zipfile
from typing import TYPE_CHECKING

import pytest

from . import build

if TYPE_CHECKING:
    from pathlib import Path

HELLO = build.Part(
    name="hello",
    title="Hello",
    version="1.2.3",
    module="example.com/hello",
    module_version="v1.0.0",
    package="cmd/hello",
    version_variable="main.version",
)

MAIN = """package main

import "example.com/hello/words"

var version string

func main() { println(words.Greeting, version) }
"""
SOURCES = {
    "go.mod": (
        "module example.com/hello\n\ngo 1.21\n\nrequire example.com/hello/words v0.1.0\n\n"
        "replace example.com/hello/words => ./words\n"
    ),
    "go.sum": "",
    "cmd/hello/main.go": MAIN,
}
WORDS = {
    "go.mod": "module example.com/hello/words\n\ngo 1.21\n",
    "words.go": 'package words\n\nconst Greeting = "hi"\n',
}


def publish(proxy: Path, module: str, version: str, files: dict[str, str]) -> None:
    """Put a module into a directory that serves as a module proxy."""
    folder = proxy / module / "@v"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "list").write_text(f"{version}\n", encoding="utf-8")
    (folder / f"{version}.info").write_text(f'{{"Version": "{version}"}}', encoding="utf-8")
    (folder / f"{version}.mod").write_text(files["go.mod"], encoding="utf-8")
    with zipfile.ZipFile(folder / f"{version}.zip", "w") as archive:
        for name, text in files.items():
            archive.writestr(f"{module}@{version}/{name}", text)


@pytest.fixture
def proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory of a module proxy with HELLO; caches are empty, and nothing else is reachable."""
    try:
        go = build.find_go(HELLO.go)
    except build.NoGoError as error:
        pytest.skip(str(error))
    folder = tmp_path / "proxy"
    publish(folder, "example.com/hello", "v1.0.0", SOURCES)
    publish(folder, "example.com/hello/words", "v0.1.0", WORDS)
    # Go's own build cache, which also depends on XDG_CACHE_HOME, stays: Go's library is compiled there.
    asked = subprocess.run([go, "env", "GOCACHE"], cwd="/", capture_output=True, text=True, check=True)
    monkeypatch.setenv("GOCACHE", asked.stdout.strip())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("GOPROXY", folder.as_uri())
    monkeypatch.setenv("GONOSUMDB", "*")
    monkeypatch.setenv("GOSUMDB", "off")
    # The module cache is read-only by default, so the directory of the test could not be removed.
    monkeypatch.setenv("GOFLAGS", "-modcacherw")
    monkeypatch.setenv("GOMODCACHE", str(tmp_path / "modules"))
    monkeypatch.setitem(build.PARTS, "hello", HELLO)
    monkeypatch.setattr(build, "NICE", ())
    return folder


def run(*names: str, path: Path, cache: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the script with only this directory on PATH."""
    return subprocess.run(
        [sys.executable, str(build.__file__), *names],
        env={"PATH": str(path), "XDG_CACHE_HOME": str(cache), **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def put(program: Path) -> Path:
    """Make an empty program."""
    program.parent.mkdir(parents=True)
    program.touch(0o755)
    return program


def test_program_is_built_of_its_module(proxy: Path) -> None:
    """A replacement by a directory becomes its own module with its version, and the program is in the cache."""
    assert build.binary("hello") is None
    program = build.build("hello")
    assert program == build.binary("hello") == build.target("hello")
    assert program.parent.name.startswith("hello-1.2.3-")
    done = subprocess.run([program], capture_output=True, text=True, timeout=10, check=True)
    assert done.stderr == "hi 1.2.3\n"
    assert [path.name for path in build.cache().iterdir()] == [program.parent.name]


def test_builds_at_once_give_one_program(proxy: Path) -> None:
    """Two simultaneous builds of the same part both succeed, with the same program."""
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(build.build("hello"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert found == [build.target("hello")] * 2
    assert [path.name for path in build.cache().iterdir()] == [found[0].parent.name]


def test_code_that_does_not_compile_is_an_error(proxy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A failed build reports what failed with Go's own message, and leaves nothing."""
    publish(proxy, "example.com/hello/words", "v0.1.0", {**WORDS, "words.go": "package words\n"})
    with pytest.raises(build.BuildError, match="Hello: the build failed"):
        build.build("hello")
    assert "words.Greeting" in capfd.readouterr().err
    assert list(build.cache().iterdir()) == []


def test_module_that_is_not_served_is_unavailable(
    proxy: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It reports the module, the proxy's message and the workaround."""
    monkeypatch.setitem(build.PARTS, "hello", dataclasses.replace(HELLO, module_version="v1.0.1"))
    with pytest.raises(build.BuildError, match=r"example.com/hello@v1.0.1 .*OTEL_PROGRESS_HELLO_BINARY") as raised:
        build.build("hello")
    assert "v1.0.1.info" in str(raised.value)
    monkeypatch.setattr(build, "NAMES", ("hello",))
    assert build.main([]) == build.EXIT_FAILED
    assert "no hello" in capfd.readouterr().err


def test_part_that_exists_is_not_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Go it prints the expected path, the Collector's last."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    programs = [put(build.target(name)) for name in ("jaeger", build.COLLECTOR)]
    done = run(build.COLLECTOR, "jaeger", path=tmp_path, cache=tmp_path)
    assert (done.returncode, done.stdout.splitlines()) == (0, [str(program) for program in programs])


def test_own_program_is_taken(tmp_path: Path) -> None:
    """A program that the environment names replaces ours; a wrong path is an error, not a build."""
    own = put(tmp_path / "bin" / "own-jaeger")
    done = run("jaeger", path=tmp_path, cache=tmp_path, OTEL_PROGRESS_JAEGER_BINARY=str(own))
    assert (done.returncode, done.stdout) == (0, f"{own}\n")
    done = run("jaeger", path=tmp_path, cache=tmp_path, OTEL_PROGRESS_JAEGER_BINARY=str(tmp_path))
    assert done.returncode == build.EXIT_FAILED
    assert "OTEL_PROGRESS_JAEGER_BINARY" in done.stderr


@pytest.mark.parametrize("name", build.GIVEN)
def test_given_program_is_never_built(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loki and Tempo run only if the environment names them; the build does not know them."""
    assert name not in build.NAMES
    variable = f"OTEL_PROGRESS_{name.upper()}_BINARY"
    monkeypatch.delenv(variable, raising=False)
    assert build.binary(name) is None
    assert run(name, path=tmp_path, cache=tmp_path).returncode == build.EXIT_FAILED
    own = put(tmp_path / "bin" / name)
    monkeypatch.setenv(variable, str(own))
    assert build.binary(name) == own


def test_nothing_under_the_agpl_is_built() -> None:
    """Nothing that is built from modules or npm is Grafana's, except packages under the Apache licence."""
    made_of = build.MANIFEST.read_text(encoding="utf-8") + "".join(part.module for part in build.PARTS.values())
    assert "github.com/grafana" not in made_of


def test_unknown_part_is_an_error(tmp_path: Path) -> None:
    """An unknown name exits with 1 and lists the known names."""
    done = run("grafana", path=tmp_path, cache=tmp_path)
    assert done.returncode == build.EXIT_FAILED
    assert "grafana" in done.stderr
    assert all(name in done.stderr for name in build.NAMES)


@pytest.mark.parametrize("name", list(build.PARTS))
def test_change_of_a_part_leads_to_a_new_build(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory of a program depends on everything that it is made of."""
    before = build.target(name)
    for change in ({"version": "0.0.0"}, {"module_version": "v0.0.0"}, {"tags": "other"}, {"package": "cmd/other"}):
        with monkeypatch.context() as patch:
            patch.setitem(build.PARTS, name, dataclasses.replace(build.PARTS[name], **change))  # type: ignore[arg-type]
            assert build.target(name) != before
    assert build.target(name) == before
