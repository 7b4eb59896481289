#!/bin/sh
# Makes this machine a controller, from the bundle that this file lies in and nothing else; the network is not used.
#
#   sh BUNDLE/controller/bootstrap.sh [DEST]      all of it; DEST is /opt/rackserve unless it is named
#   sh BUNDLE/controller/bootstrap.sh --packages  only the Debian packages, which need root; then the rest needs none
#
# It may be interrupted and run again. What bootstrap.py does is everything but the packages.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
bundle=$(dirname -- "$here")
python=/usr/bin/python3
scratch=
trap 'rm -rf "$scratch"' EXIT
trap 'exit 2' INT TERM

refuse() {
  printf 'bootstrap: %s\n' "$1" >&2
  exit 2
}

is_missing() {
  [ "$(dpkg-query --show --showformat '${db:Status-Status}' "$1" 2>/dev/null || true)" != installed ]
}

# apt with the bundle as its only source: the machine's own sources, lists and caches are neither read nor changed.
# The same settings as in roles/bundle/templates/apt.conf.j2.
bundle_apt() {
  APT_CONFIG=$scratch/apt.conf apt-get -qq "$@" >"$scratch/log" 2>&1
}

install_or_resume() { # the second try is for an installation that was cut off
  bundle_apt install -y -- "$@" && return
  dpkg --configure -a >"$scratch/log" 2>&1 && bundle_apt install -y -- "$@"
}

install_packages() {
  # shellcheck source=/dev/null
  release=$(. /etc/os-release && printf '%s-%s' "$ID" "${VERSION_ID:-unknown}")
  repository=$bundle/apt/$release
  [ -f "$repository/InRelease" ] || refuse "this machine lacks $*, and the bundle has no apt/$release to take them from; \
name the release in bundle.yml, or install them by other means"
  [ "$(id -u)" -eq 0 ] || refuse "this machine lacks $*; run: sudo sh '$here/bootstrap.sh' --packages"
  scratch=$(mktemp -d)
  mkdir -p "$scratch/lists/partial" "$scratch/cache/archives/partial"
  cp "$repository/archive-key.gpg" "$scratch/archive-key.gpg"
  printf 'deb [signed-by=%s] file:%s ./\n' "$scratch/archive-key.gpg" \
    "$(printf '%s' "$repository" | sed 's/%/%25/g; s/ /%20/g')" >"$scratch/bundle.list"
  cat >"$scratch/apt.conf" <<APT
Dir::Etc::parts "/dev/null";
Dir::Etc::main "/dev/null";
Dir::Etc::sourcelist "$scratch/bundle.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State::lists "$scratch/lists";
Dir::Cache "$scratch/cache";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
Acquire::GzipIndexes "true";
Acquire::Languages "none";
DPkg::Lock::Timeout "120";
APT
  export DEBIAN_FRONTEND=noninteractive
  started=$(date +%s)
  if ! { bundle_apt update && install_or_resume "$@"; }; then
    cat "$scratch/log" >&2
    refuse "cannot install $* from $repository"
  fi
  printf '[controller] Debian packages %s: %d s\n' "$*" "$(($(date +%s) - started))" >&2
}

case "${1:-}" in
  -h | --help)
    sed -n '2,7s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
esac

missing=
while read -r package; do
  if is_missing "$package"; then missing="$missing $package"; fi
done <"$here/packages"
# shellcheck disable=SC2086 # one word a package
[ -z "$missing" ] || install_packages $missing

[ "${1:-}" != --packages ] || exit 0
rm -rf "$scratch"
exec "$python" -B "$here/bootstrap.py" "$@"
