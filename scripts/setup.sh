#!/usr/bin/env bash
# Does what is missing of the set-up: virtual environment, dependencies, Java, Delta's jars. Nothing missing: 0.2 s.
#   PYTHON=<command>    the Python to use; by default the first of python3, python3.13, python3.12, python3.11 that fits
#   TORCH_INDEX=<url>   where PyTorch comes from, for example https://download.pytorch.org/whl/cpu (small, no CUDA)
set -euo pipefail
cd "$(dirname "$0")/.."

python=.venv/bin/python
records=.venv/share/visionlake
say() { printf 'setup: %s\n' "$*"; }
fail() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

# ---- nothing to do?
fingerprint() {
    java_fits
    cksum pyproject.toml requirements/lock.txt scripts/setup.sh scripts/pip_settings.sh scripts/prepare_spark.py
    "$python" -c 'import os, platform; print(platform.python_version(), ascii(os.getcwd()))'
}
# Works before anything is installed: the folders are the package.
java_fits() {
    "$python" -c 'import visionlake; visionlake.__path__.append(".")
from visionlake.jobs import _java
raise SystemExit(_java.main())'
}
if [ -n "${TORCH_INDEX-}" ] && [ -e $records/setup ] && [ "$TORCH_INDEX" != "$(cat $records/torch-index)" ]; then
    say "TORCH_INDEX counts when the environment is made: run 'make clean-venv' first to change it"
fi
if [ -e $records/setup ] && [ "$(fingerprint 2>&1)" = "$(cat $records/setup)" ]; then
    exit 0
fi

# ---- virtual environment
fits() { "$1" -c 'import sys; raise SystemExit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; }
if [ -e .venv ] && { ! fits $python || { [ -e $records/place ] && [ "$(cat $records/place)" != "$PWD" ]; }; }; then
    say "the environment in .venv is from another place or Python; making it anew"
    rm -rf .venv
fi
if [ ! -e .venv ]; then
    base=
    if [ -n "${PYTHON-}" ]; then set -- "$PYTHON"; else set -- python3 python3.13 python3.12 python3.11; fi
    for candidate; do
        if fits "$candidate"; then base=$candidate && break; fi
    done
    [ -n "$base" ] || fail "visionlake needs Python 3.11, 3.12 or 3.13, and none of these is one: $*;" \
        "install one, or name it, as in: make PYTHON=/opt/python3.13/bin/python3 setup"
    say "virtual environment with $("$base" --version)"
    if ! "$base" -m venv .venv >/dev/null 2>&1; then
        rm -rf .venv
        fail "'$base -m venv' failed; on Debian and Ubuntu: apt-get install python3-venv"
    fi
fi
mkdir -p $records
printf '%s' "$PWD" >$records/place

# ---- Java, before the long downloads
install_java() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq </dev/null || say "apt-get update failed; going on with the package lists that are there"
    for version in 21 17; do
        package=openjdk-$version-jre-headless
        case $(LC_ALL=C apt-cache policy $package) in *"Candidate: "[0-9]*) ;; *) continue ;; esac
        say "installing $package"
        mkdir -p /usr/share/man/man1 # absent from minimal systems, and the package's script wants it
        apt-get install -y -qq --no-install-recommends $package </dev/null >$records/apt.log 2>&1 ||
            { tail -n 20 $records/apt.log >&2; return 1; }
        for home in /usr/lib/jvm/java-$version-openjdk-*; do ln -sfn "$home" $records/java; done
        return
    done
    return 1
}
if ! complaint=$(java_fits 2>&1); then
    [ -z "${JAVA_HOME-}" ] || fail "$complaint"
    install_java || fail "$complaint"
    java_fits >/dev/null || fail "the Java just installed does not fit"
fi

# ---- dependencies
$python -m pip --version >/dev/null 2>&1 || $python -m ensurepip >/dev/null # an environment made by uv, or half made
. scripts/pip_settings.sh
if $python -m pip install --quiet --disable-pip-version-check --constraint requirements/lock.txt uv; then
    install() {
        UV_COMPILE_BYTECODE_TIMEOUT=600 .venv/bin/uv pip install --compile-bytecode --python $python --constraint requirements/lock.txt "$@"
    }
else
    say "uv cannot be installed here; using pip, which takes longer"
    install() {
        $python -m pip install --disable-pip-version-check --constraint requirements/lock.txt "$@"
    }
fi
say "installing dependencies (PyTorch with CUDA is several GB; TORCH_INDEX chooses another)"
if [ -n "${TORCH_INDEX-}" ]; then
    mapfile -t torch < <(grep -E '^torch(vision)?==' requirements/lock.txt)
    install --index-url "$TORCH_INDEX" --no-deps "${torch[@]}"
fi
install --editable '.[dev]'
printf '%s' "${TORCH_INDEX-}" >$records/torch-index

# ---- Spark
say "Delta's jars"
$python scripts/prepare_spark.py jars
say "archive of Java classes, for a quick start"
$python scripts/prepare_spark.py archive || say "no archive; Spark starts without it, just slower"
fingerprint >$records/setup
say "done in $SECONDS s"
