#!/usr/bin/env bash
# Makes a stand-in for AWS's image provided.al2023, on which sam local builds, for machines
# that can't reach a registry. It has the tag of AWS's image and contains a static busybox.
# SAM adds Lambda's runtime emulator, for which it needs sh, mv and chmod; Keyway's programs
# are static and need nothing. It is not Amazon Linux: a test that passes here has not run
# on AWS's image.
set -euo pipefail

case "$(uname -m)" in
  x86_64) arch=x86_64 platform=linux/amd64 ;;
  aarch64 | arm64) arch=arm64 platform=linux/arm64 ;;
  *) echo "no stand-in for $(uname -m)" >&2; exit 1 ;;
esac
tag=public.ecr.aws/lambda/provided:al2023-$arch
if docker image inspect "$tag" >/dev/null 2>&1; then exit 0; fi

busybox=$(command -v busybox) && ! ldd "$busybox" >/dev/null 2>&1 || { echo "install busybox-static" >&2; exit 1; }
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/{bin,etc/ssl/certs,opt,proc,sys,dev,var/task,var/runtime,var/rapid}
mkdir -m 1777 "$root/tmp"
cp -L "$busybox" "$root/bin/busybox"
for name in sh mv cp rm chmod mkdir ls cat; do ln -s busybox "$root/bin/$name"; done
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
echo 'root:x:0:0:root:/:/bin/sh' >"$root/etc/passwd"
tar -C "$root" --numeric-owner --owner=0 --group=0 -c . |
  docker import --platform "$platform" -c 'ENV PATH=/bin' -c 'ENV LAMBDA_TASK_ROOT=/var/task' -c 'WORKDIR /var/task' - "$tag" >/dev/null
echo "made a stand-in for $tag"
