"""`python -m visionlake`."""

from visionlake.cli import run_process

run_process()
