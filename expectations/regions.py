"""View `regions`: a row per class that is seen in a frame."""

from __future__ import annotations

from ._table import View

VIEW = View(
    name="regions",
    comment="One row per frame, model and class seen; `share` is its part of the frame.",
    reads=("semantic_masks",),
    sql="""
SELECT
  media_id, stream_index, pts, model_id, frame_width_px, frame_height_px,
  r.label_id, r.label, r.area_px, r.area_px / (frame_width_px * frame_height_px) AS share, r.mask
FROM {semantic_masks} LATERAL VIEW explode(regions) AS r
""",
)
