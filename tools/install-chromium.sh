#!/bin/sh
# Installs Debian's Chromium where it is missing: the tests of the monitor's page run in it.
set -eu

[ ! -x /usr/bin/chromium ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "install chromium as /usr/bin/chromium by hand: there is no apt-get here" >&2
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    as_root=
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root="sudo"
else
    echo "run as root: apt-get install --no-install-recommends chromium" >&2
    exit 1
fi
echo "installing chromium: once, about a minute" >&2
apt_get() { $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 "$@" >&2; }
apt_get install --no-install-recommends -y chromium || {
    apt_get update
    apt_get install --no-install-recommends -y chromium
}
