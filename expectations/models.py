"""View `models`: who labels in this lake, one row per model id."""

from __future__ import annotations

from ._table import View

_FACTS = ("backend", "name", "version", "source", "registry_version", "digests", "card", "labels", "licence")
_IS_PUBLISHED = "status IN ('published', 'released')"

VIEW = View(
    name="models",
    comment="One row per model id (name@version:digest): what the model is, and when and for how much it was used; "
    "rows of waves from before such facts were kept have null in their place.",
    reads=("waves",),
    sql=f"""
SELECT
  producer AS model_id,
  {"".join(f"model.{name} AS {name}, " for name in _FACTS)}
  stages,
  first_used_at,
  last_used_at,
  run_count,
  wave_count,
  rows_published,
  code_version
FROM (
  SELECT
    producer,
    max_by(model, struct(finished_at, sequence)) FILTER (WHERE model IS NOT NULL) AS model,
    array_sort(collect_set(stage)) AS stages,
    min(started_at) FILTER (WHERE rows_in > 0) AS first_used_at,
    max(finished_at) FILTER (WHERE rows_in > 0) AS last_used_at,
    count(DISTINCT run_id) FILTER (WHERE rows_in > 0) AS run_count,
    count(*) FILTER (WHERE rows_in > 0 AND {_IS_PUBLISHED}) AS wave_count,
    coalesce(sum(rows_published) FILTER (WHERE {_IS_PUBLISHED}), 0) AS rows_published,
    max_by(code_version, struct(finished_at, sequence)) AS code_version
  FROM {{waves}}
  WHERE producer <> stage
  GROUP BY producer
)
""",
)
