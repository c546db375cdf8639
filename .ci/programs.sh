#!/usr/bin/env bash
# Installs the programs of acceptance/programs/testdata, or those that the arguments name, and
# prints the export line for the tests. Each directory there is one program. It is installed
# into a directory of the same name in the cache, by what is found in it:
#   requirements.txt   Python packages, into a virtual environment
#   package-lock.json  npm packages
#   pom.xml            jars, into lib
#   install.sh         anything else; its argument is the directory to install into
# A program is installed again when one of these files has changed.
set -euo pipefail
cd "$(dirname "$0")/../acceptance/programs/testdata"

root=${XDG_CACHE_HOME:-$HOME/.cache}/keyway/programs
[ "$#" -gt 0 ] || set -- */
mkdir -p "$root"
exec 9>"$root/lock" # a second call waits for the first
flock 9

install() {
  local pins=$PWD/$1 to=$root/$1
  rm -rf "$to"
  mkdir -p "$to"
  if [ -f "$pins/requirements.txt" ]; then
    python3 -m venv "$to"
    "$to/bin/python" -m pip install --quiet --disable-pip-version-check -r "$pins/requirements.txt"
  fi
  if [ -f "$pins/package-lock.json" ]; then
    cp "$pins/package.json" "$pins/package-lock.json" "$to/"
    (cd "$to" && npm ci --silent --ignore-scripts --no-audit --no-fund)
  fi
  if [ -f "$pins/pom.xml" ]; then
    mvn --quiet --batch-mode --file "$pins/pom.xml" dependency:copy-dependencies "-DoutputDirectory=$to/lib"
  fi
  if [ -f "$pins/install.sh" ]; then
    (cd "$pins" && bash ./install.sh "$to")
  fi
}

# The pins of a program, as they were when it was installed.
pins() {
  (cd "$1" && for file in requirements.txt package-lock.json pom.xml install.sh versions.txt; do
    if [ -f "$file" ]; then cat "$file"; fi
  done)
}

for name in "$@"; do
  name=${name%/}
  if [ "$(pins "$name")" = "$(cat "$root/$name/installed" 2>/dev/null)" ]; then
    continue
  fi
  from=$SECONDS
  install "$name" >&2
  pins "$name" >"$root/$name/installed"
  echo "installed $name in $((SECONDS - from))s" >&2
done
echo "export KEYWAY_PROGRAMS=$root"
