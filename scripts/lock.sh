#!/usr/bin/env bash
# Writes requirements/lock.txt: one exact version of everything (core, extras, tools) for every Python allowed.
# Versions stay as they are where they fit; `--upgrade` takes the newest of all, `--upgrade-package NAME` of one.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/pip_settings.sh

.venv/bin/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --no-header --no-annotate \
    --no-emit-package visionlake --quiet --output-file requirements/lock.txt "$@"
