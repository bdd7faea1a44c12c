#!/bin/sh
# Installs Prometheus with promtool, and Alertmanager with amtool, from Debian's packages, where they are missing.
# The tests and the example of the alerts run them as plain programs; no service is started.
set -eu

missing=
command -v prometheus >/dev/null && command -v promtool >/dev/null || missing="prometheus"
command -v prometheus-alertmanager >/dev/null && command -v amtool >/dev/null || missing="$missing prometheus-alertmanager"
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "install prometheus, promtool, prometheus-alertmanager and amtool by hand: there is no apt-get here" >&2
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    as_root=
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root="sudo"
else
    echo "run as root: apt-get install --no-install-recommends$(printf ' %s' $missing)" >&2
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
echo "installing$(printf ' %s' $missing): once, some seconds" >&2
# shellcheck disable=SC2086 # a list of names
apt_get() { $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 "$@" >&2; }
apt_get install --no-install-recommends -y $missing || {
    apt_get update
    apt_get install --no-install-recommends -y $missing
}
