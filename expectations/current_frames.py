"""View `current_frames`: the frames of all content that lies somewhere at present, once each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from . import sources
from ._table import View


def _sql(columns: Mapping[str, Sequence[str]]) -> str:
    """The manifest's columns are those of `sources` that are not declared.

    One that is called like a column of `frames` appears as `source_<name>`, since a view has each name once.
    """
    taken = {name.lower() for name in columns["frames"]} | {"uri", "uris"}
    manifest = [name for name in columns["sources"] if name not in sources.TABLE.column_names]
    shown = {name: f"source_{name}" if name.lower() in taken else name for name in manifest}
    picked = ", ".join(f"`{name}`" for name in ("uri", *manifest))
    extra = "".join(f", s.origin.`{name}` AS `{alias}`" for name, alias in shown.items())
    return f"""
SELECT f.*, s.origin.uri AS uri, s.uris{extra}
FROM {{frames}} AS f
JOIN (
  SELECT
    media_id,
    min_by(struct({picked}), struct(first_seen, uri)) AS origin,
    array_sort(collect_set(uri)) AS uris
  FROM {{sources}}
  WHERE state = 'present'
  GROUP BY media_id
) AS s
ON f.media_id = s.media_id
"""


VIEW = View(
    name="current_frames",
    comment="One row per frame whose content is present somewhere, with the manifest's columns of the source that was "
    "seen first (then of the smallest uri); `uris` lists all places.",
    reads=("frames", "sources"),
    sql=_sql,
)
