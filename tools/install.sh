#!/bin/sh
# Install the Debian packages of missing programs that the tests and the examples run:
#   sh tools/install.sh prometheus promtool prometheus-alertmanager amtool redis-server chromium
# Tests run them as plain programs, each with its own folder and port; no service is started.
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
    echo "there is no apt-get here; install by hand:$missing" >&2
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

# Installing a package starts its service unless policy-rc.d forbids it. An existing policy-rc.d is kept.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap '$as_root rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
    $as_root chmod 755 "$policy"
fi
echo "installing$missing; this happens once and takes about a minute" >&2
apt_get() { $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 "$@" >&2; }
# shellcheck disable=SC2086 # a list of names
apt_get install --no-install-recommends -y $missing || {
    apt_get update
    apt_get install --no-install-recommends -y $missing
}
