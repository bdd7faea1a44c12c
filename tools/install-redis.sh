#!/bin/sh
# Installs redis-server, with redis-cli, from Debian's packages, where it is missing.
# The tests run it as a plain program, each with a folder and a port of its own; no service is started.
set -eu

! command -v redis-server >/dev/null || exit 0

if ! command -v apt-get >/dev/null; then
    echo "install redis-server by hand: there is no apt-get here" >&2
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    as_root=
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root="sudo"
else
    echo "run as root: apt-get install --no-install-recommends redis-server" >&2
    exit 1
fi

# A package that is installed starts its service, unless policy-rc.d says that it may not. One that is there is kept.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap '$as_root rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
    $as_root chmod 755 "$policy"
fi
echo "installing redis-server: once, some seconds" >&2
apt_get() { $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 "$@" >&2; }
apt_get install --no-install-recommends -y redis-server || {
    apt_get update
    apt_get install --no-install-recommends -y redis-server
}
