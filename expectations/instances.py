"""View `instances`: a row per box."""

from __future__ import annotations

from ._table import View

VIEW = View(
    name="instances",
    comment="One row per box that a model found; `instance_index` is its place in the frame's row, best first.",
    reads=("detections",),
    sql="""
SELECT
  media_id, stream_index, pts, model_id, frame_width_px, frame_height_px,
  instance_index, i.label_id, i.label, i.score, i.box.x_min, i.box.y_min, i.box.x_max, i.box.y_max,
  i.area_px, i.mask, i.parents
FROM {detections} LATERAL VIEW posexplode(instances) AS instance_index, i
""",
)
