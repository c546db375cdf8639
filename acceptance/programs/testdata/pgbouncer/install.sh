#!/usr/bin/env bash
# Installs the PgBouncer of two Debian releases into the directory $1, each as a program of its own: bookworm and trixie. Each
# has the C library of its release beside it, so both run on any Debian. Nothing else on the machine changes: apt gets
# directories of its own. Without Debian's apt-get, this program can't be installed.
set -euo pipefail
to=$1
apt() {
  local release=$1
  shift
  apt-get -qq -o Dir::Etc::sourcelist="$to/$release/sources.list" -o Dir::Etc::sourceparts=- \
    -o Dir::State="$to/$release/apt" -o Dir::State::status="$to/$release/apt/status" -o Dir::Cache="$to/$release/apt" \
    -o APT::Sandbox::User=root "$@"
}
# The mirror of Debian that this machine uses.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 '/debian/$')
while IFS='/=' read -r release name _ version; do
  dir=$to/$release
  mkdir -p "$dir/apt/lists/partial" "$dir/apt/archives/partial" "$dir/deb" "$dir/root"
  touch "$dir/apt/status"
  keys=/usr/share/keyrings/debian-archive-keyring.gpg
  echo "deb [signed-by=$keys] $mirror $release main" >"$dir/sources.list"
  apt "$release" update
  libraries=(libc6 libaudit1 libcap-ng0 libcap2 libgcrypt20 libgpg-error0 liblz4-1 liblzma5 libpam0g libsystemd0 libzstd1 zlib1g)
  case $release in
  bookworm) libraries+=(libc-ares2 libevent-2.1-7 libssl3) ;;
  *) libraries+=(libcares2 libevent-2.1-7t64 libssl3t64) ;;
  esac
  (cd "$dir/deb" && apt "$release" download "$name" "${libraries[@]}")
  for deb in "$dir"/deb/*.deb; do dpkg-deb --extract "$deb" "$dir/root"; done
  loader=$(find "$dir/root" -name 'ld-linux*.so.*' -print -quit)
  paths=$(find "$dir/root" -name '*.so.*' -printf '%h\n' | sort -u | paste -sd:)
  printf '#!/bin/sh\nexec "%s" --library-path "%s" "%s" "$@"\n' \
    "$loader" "$paths" "$dir/root/usr/sbin/pgbouncer" >"$dir/pgbouncer"
  chmod +x "$dir/pgbouncer"
  rm -rf "$dir/apt" "$dir/deb"
  "$dir/pgbouncer" --version | grep -F "PgBouncer $version" # what versions.txt says
done <versions.txt
