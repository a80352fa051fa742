"""View `runs`: the waves of a run summed up, one row per run, stage and producer."""

from __future__ import annotations

from ._table import View

VIEW = View(
    name="runs",
    comment="One row per run, stage and producer: the waves of the run summed up.",
    reads=("waves",),
    sql="""
SELECT
  run_id,
  stage,
  producer,
  CASE
    WHEN bool_or(status = 'failed') THEN 'failed'
    WHEN bool_or(status = 'stopped') THEN 'stopped'
    ELSE 'published'
  END AS status,
  min(started_at) AS started_at,
  max(finished_at) AS finished_at,
  count(*) AS wave_count,
  sum(rows_in) AS rows_in,
  coalesce(sum(rows_published) FILTER (WHERE status IN ('published', 'released')), 0) AS rows_published,
  sum(rows_quarantined) AS rows_quarantined,
  array_sort(array_distinct(flatten(collect_list(
    transform(filter(checks, c -> c.status NOT IN ('passed', 'skipped')), c -> c.name)
  )))) AS checks_not_passed,
  max_by(error, sequence) FILTER (WHERE error IS NOT NULL) AS error,
  max_by(config, sequence) AS config,
  max_by(code_version, sequence) AS code_version
FROM {waves}
GROUP BY run_id, stage, producer
""",
)
