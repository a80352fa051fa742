"""`visionlake show`: one frame of a lake as a picture, with the boxes that models found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from visionlake.errors import UsageError
from visionlake.jobs._look_up import find_labels, find_media, find_pts, rows_of

from ._text import clean

if TYPE_CHECKING:
    from visionlake.jobs._lake import Lake

_MAX_PIXELS = 200_000_000
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


def write_picture(
    lake: Lake, media: str, *, stream: int, pts: int | None, model: str | None, models: Sequence[str], out: Path | None
) -> tuple[Path, list[tuple[str, int]] | None]:
    """Write the frame of a media as PNG or JPEG: that at `pts`, or the one with the most objects.

    Boxes are those of the models whose id begins with `model`; else of `models`, those of the pipeline; else of all.
    Returns the file, and per label and model how many objects and regions are drawn, or None where no model has looked
    at the frame. Raises UsageError where there is no such media, frame or model.
    """
    from visionlake.jobs._again import with_pictures
    from visionlake.udfs._errors import MediaError
    from visionlake.udfs.draw_boxes import draw_boxes
    from visionlake.udfs.stored_picture import open_stored

    if out is not None and out.suffix.lower() not in _FORMATS:
        raise UsageError(f"--out {clean(out)}: allowed are the endings {', '.join(_FORMATS)}")
    media_id = find_media(lake, media)
    frames = rows_of(lake, "frames", media_id, stream)
    labels = find_labels(lake, media_id, stream, model, models)
    pts = find_pts(frames, labels, pts)
    frame = with_pictures(lake, frames.where(f"pts = {pts}"), max_pixels=_MAX_PIXELS).collect()[0]
    found = [] if labels is None else labels.where(f"pts = {pts}").orderBy("model_id").collect()
    if frame["image"] is None and frame["image_format"] is None:
        raise UsageError(
            f"the frame at pts {pts} cannot be shown: it is stored without a picture, and its media is not "
            "where ingest saw it last, or has changed; run ingest_media again"
        )
    try:
        picture = open_stored(frame["image"], max_pixels=_MAX_PIXELS)
    except MediaError as error:
        raise UsageError(f"the frame at pts {pts} cannot be shown: {error}") from None
    drawn, regions = (
        [(row["model_id"], one) for row in found for one in row.asDict(recursive=True)[what] or ()]
        for what in ("instances", "regions")
    )
    target = out or Path(f"{_stem(lake, media_id)}_{pts}.png")
    try:
        made = draw_boxes(picture, [one for _, one in drawn], regions=[one for _, one in regions])
        made.save(target, _FORMATS[target.suffix.lower()], quality=92)
    except (OSError, ValueError) as error:
        raise UsageError(f"{target} cannot be written: {error}") from None
    if not found:
        return target, None
    several = len({row["model_id"] for row in found}) > 1
    counts = Counter(f"{one['label']} ({model})" if several else str(one["label"]) for model, one in drawn + regions)
    return target, sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _stem(lake: Lake, media_id: str) -> str:
    from pyspark.sql import functions as F

    from visionlake.udfs.uris import display

    rows = lake.table("sources").where(F.col("media_id") == media_id).orderBy("uri").select("uri").head(1)
    return Path(display(rows[0]["uri"])).stem or media_id[:12]
