#!/usr/bin/env bash
# Makes the virtual environment: every extra, the project itself (editable) and the tools, at the versions of constraints.txt.
# Usage: scripts/install.sh DIRECTORY. Safe to repeat. As root it installs a missing python3-venv with apt; else it names it.
set -euo pipefail
cd "$(dirname "$0")/.."
directory=$1

find_python() {
    for name in python3.11 python3.12 python3.13 python3; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    echo "Python (none found) must be 3.11 or newer; install it: apt-get install -y python3" >&2
    exit 1
}

python=$(find_python)
if [ ! -x "$directory/bin/python" ]; then
    if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
            apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q python3-venv
        else
            echo "Python's venv module (missing) must be there; install it: apt-get install -y python3-venv" >&2
            exit 1
        fi
    fi
    "$python" -m venv "$directory"
fi
if [ ! -x "$directory/bin/uv" ]; then
    "$directory/bin/python" -m pip install -q -c constraints.txt uv
fi
# uv shares one download cache between environments and links from it: a second checkout installs in seconds.
"$directory/bin/uv" pip install -q --python "$directory/bin/python" -c constraints.txt \
    --group dev --group devcluster -e '.[operator,trainer,cli]'
