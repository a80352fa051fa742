#!/usr/bin/env bash
# Makes .typing/visionlake, links that show the type checker the folders as the package they are installed as.
set -euo pipefail
cd "$(dirname "$0")/.."
rm -rf .typing
mkdir -p .typing/visionlake
for file in visionlake/*.py visionlake/py.typed; do ln -s "../../$file" .typing/visionlake/; done
for folder in jobs udfs expectations; do ln -s "../../$folder" .typing/visionlake/; done
