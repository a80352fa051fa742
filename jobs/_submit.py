"""One stage as a Spark application: `spark-submit --py-files visionlake.zip jobs/<stage>.py --config FILE`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from visionlake.errors import VisionlakeError


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", required=True, metavar="FILE", help="The pipeline file (TOML).")
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Over what the file says.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most N media (files).")
@click.option("--rebuild", is_flag=True, help="Process everything again.")
@click.option("--dry-run", is_flag=True, help="Show plan and configuration, and do nothing.")
@click.pass_obj
def _submit(
    stage: str, config: str, overrides: tuple[str, ...], limit: int | None, rebuild: bool, dry_run: bool
) -> int:
    from visionlake._run import run_pipeline

    return run_pipeline(config, only=[stage], overrides=overrides, limit=limit, rebuild=rebuild, dry_run=dry_run)


def main(stage: str, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one stage in the cluster's session as it is, and exit: 0 done, 1 failed, 2 configuration, 3 gate stopped."""
    try:
        code = _submit.main(args=arguments, prog_name=f"{stage}.py", obj=stage, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.exceptions.Abort:
        code = 130
    except VisionlakeError as error:
        click.echo(f"visionlake: {error}", err=True)
        code = error.exit_code
    sys.exit(code)
