"""Builds the OpenTelemetry Collector that the tests run against, once, into the user's cache folder.

Run it as `python tests/stack/build.py` (`make stack` does). It prints the path of the binary last, and
exits with 3 when there is no Go to build with and with 1 when the build fails.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

MANIFEST = Path(__file__).with_name("builder.yaml")
MIN_GO = (1, 25)
"""The oldest Go that the builder and the components compile with (the `go` line of their go.mod)."""

EXIT_FAILED = 1
EXIT_NO_GO = 3


class NoGoError(Exception):
    """There is no Go on PATH that can build the Collector."""


class BuildError(Exception):
    """Go ran, but the build failed."""


def version() -> str:
    """Return the Collector's version, as the manifest has it."""
    found = re.search(r"^ {2}version: *([0-9][\w.-]*)", MANIFEST.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise BuildError(f"{MANIFEST.name} has no dist.version")
    return found[1]


def target() -> Path:
    """Return where the binary belongs, whether it is there or not."""
    # XDG says that a relative path is to be ignored.
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
    cache = xdg if xdg.is_absolute() else Path.home() / ".cache"
    digest = hashlib.sha256(MANIFEST.read_bytes()).hexdigest()[:12]
    return cache / "otel-progress" / f"otelcol-{version()}-{digest}" / "otelcol"


def collector_binary() -> Path | None:
    """Return the Collector's binary, or None when it has not been built yet. Never builds."""
    binary = target()
    return binary if os.access(binary, os.X_OK) else None


def find_go() -> Path:
    """Return a Go that is new enough.

    Raises:
        NoGoError: There is none on PATH, or only an older one.
    """
    wanted = ".".join(map(str, MIN_GO))
    advice = f"install Go {wanted} or newer (`sh tools/install-go.sh` prints the folder for PATH) and try again"
    found = shutil.which("go")
    if found is None:
        raise NoGoError(f"there is no `go` on PATH: {advice}")
    # With GOTOOLCHAIN=local this is the version that is installed, and nothing is downloaded.
    env = {**os.environ, "GOTOOLCHAIN": "local"}
    command = [found, "env", "GOVERSION"]
    asked = subprocess.run(command, env=env, cwd="/", capture_output=True, text=True, check=False)
    numbers = re.match(r"go(\d+)\.(\d+)", asked.stdout)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < MIN_GO:
        raise NoGoError(f"`go` on PATH is {asked.stdout.strip() or 'broken'}: {advice}")
    return Path(found)


def build() -> Path:
    """Return the Collector's binary, building it when it is not there.

    Several builds at once are safe: each works in a folder of its own, and the first to finish wins.

    Raises:
        NoGoError: There is no Go to build with.
        BuildError: The build failed; Go's own words were printed.
    """
    existing = collector_binary()
    if existing is not None:
        return existing
    go = find_go()
    binary = target()
    root = binary.parent.parent
    root.mkdir(parents=True, exist_ok=True)
    print(f"building the OpenTelemetry Collector {version()}: once, some minutes", flush=True)
    # In the same file system as the target, so that the rename is atomic.
    with tempfile.TemporaryDirectory(prefix=".otelcol-", dir=root, ignore_cleanup_errors=True) as name:
        made = _compile(go, Path(name))
        ready = Path(name) / "ready"
        ready.mkdir()
        made.rename(ready / binary.name)
        try:
            ready.rename(binary.parent)
        except OSError:
            # Another build was faster, or an earlier one left the folder without a binary.
            binary.parent.mkdir(exist_ok=True)
            (ready / binary.name).replace(binary)
    return binary


def _compile(go: Path, folder: Path) -> Path:
    builder = f"go.opentelemetry.io/collector/cmd/builder@v{version()}"
    command = [str(go), "run", builder, f"--config={MANIFEST.resolve()}"]
    # The builder calls `go` by name: it must be the one that was found. The stamp of a version control
    # system would fail where the cache lies in somebody else's checkout.
    env = {
        **os.environ,
        "PATH": f"{go.parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "GOFLAGS": f"{os.environ.get('GOFLAGS', '')} -buildvcs=false".strip(),
        "GOWORK": "off",
    }
    done = subprocess.run(command, cwd=folder, env=env, stdin=subprocess.DEVNULL, check=False)
    made = folder / "build" / "otelcol"
    if done.returncode != 0 or not made.exists():
        raise BuildError(f"the builder failed with exit code {done.returncode}; see the lines above")
    return made


def main() -> int:
    """Build, and say where the binary is."""
    try:
        binary = build()
    except NoGoError as error:
        print(f"no Collector: {error}", file=sys.stderr)
        return EXIT_NO_GO
    except BuildError as error:
        print(f"no Collector: {error}", file=sys.stderr)
        return EXIT_FAILED
    print(binary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
