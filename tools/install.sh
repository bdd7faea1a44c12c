#!/bin/sh
# Installs Debian's packages of programs that the tests and the examples run, where the programs are missing:
#   sh tools/install.sh prometheus promtool prometheus-alertmanager amtool redis-server chromium
# They are run as plain programs, each with a folder and a port of its own; no service is started.
set -eu

missing=
for program in "$@"; do
    command -v "$program" >/dev/null && continue
    case $program in
        promtool) package=prometheus ;;
        amtool) package=prometheus-alertmanager ;;
        *) package=$program ;;
    esac
    case " $missing " in *" $package "*) ;; *) missing="$missing $package" ;; esac
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "install by hand:$missing; there is no apt-get here" >&2
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    as_root=
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root="sudo"
else
    echo "run as root: apt-get install --no-install-recommends$missing" >&2
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
echo "installing$missing: once, about a minute" >&2
apt_get() { $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 "$@" >&2; }
# shellcheck disable=SC2086 # a list of names
apt_get install --no-install-recommends -y $missing || {
    apt_get update
    apt_get install --no-install-recommends -y $missing
}
