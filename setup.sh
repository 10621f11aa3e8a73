#!/bin/bash -p
# Makes the virtual environment that the Makefile's targets run in, if it is not there yet.
#
# Usage: ./setup.sh [--python COMMAND] [EXTRA...]
#
# COMMAND names the interpreter. Otherwise an environment that is there keeps its own, whatever the
# PATH says, and a new one takes the newest of Python 3.12, 3.11 and 3.10 on the PATH. This script
# finds it and leaves the rest to make_environment.py, which says what the EXTRAs are.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
unset "${!PYTHON@}"

say() { echo "set-up: $*" >&2; }

# Prints the real interpreter; fails if the command is not one of ours. The command is run, because
# a version manager can leave commands on the PATH that only print an error.
probe() {
    "$1" -I -c '
import os, sys
if not (3, 10) <= sys.version_info < (3, 13):
    sys.exit(1)
print(os.path.realpath(sys.executable))
' 2>/dev/null
}

if [[ ${1:-} == --python ]]; then
    python=${2:-}
    if ! command -v "$python" >/dev/null; then
        say "PYTHON=$python: there is no such command. Name another, or leave PYTHON out."
        exit 1
    elif ! interpreter=$(probe "$python"); then
        say "PYTHON=$python is not a working Python 3.10, 3.11 or 3.12 (it says:" \
            "$("$python" --version 2>&1 | tail -n 1)). Name another, or leave PYTHON out."
        exit 1
    fi
    shift 2
else
    interpreter=
    for candidate in .venv/bin/python python3.12 python3.11 python3.10 python3; do
        if interpreter=$(probe "$candidate"); then
            break
        fi
    done
    if [[ ! $interpreter ]]; then
        sudo='sudo '
        [[ $(id -u) == 0 ]] && sudo=
        say "there is no working Python 3.10, 3.11 or 3.12 on the PATH."
        echo "  Where the system's own Python is newer, install one of these beside it" \
             "and name it: make PYTHON=/path/to/python3.12 ..." >&2
        echo "  On Debian and Ubuntu install with:" \
             " ${sudo}apt-get install python3 python3-venv python3-dev g++" >&2
        exit 1
    fi
fi

exec "$interpreter" -I make_environment.py "$@"
