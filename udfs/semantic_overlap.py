"""Which pixels a model takes for a class against those that are of it, frame by frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .resize_rle import resize_rle
from .rle import decode_mask

OVERLAP_DDL = "model_id string, label string, shared_px bigint, either_px bigint, media_id string"
OVERLAP = pa.schema(
    [
        *(("model_id", pa.string()), ("label", pa.string()), ("shared_px", pa.int64()), ("either_px", pa.int64())),
        ("media_id", pa.string()),
    ]
)
"""A row per frame, model and class, and one without a class per frame."""


def overlap_frames(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Rows of `OVERLAP` for frames that somebody has labelled with masks and a model has segmented.

    In: `model_id`, `media_id`, `truth` (instances as in `annotations`, of which those of a class are put together) with
    `full_width_px` and `full_height_px`, `regions` as in `semantic_masks`. Pixels of crowds are left out; a frame with
    an object without a mask gives no row.
    """
    for batch in batches:
        rows = [row for frame in batch.to_pylist() for row in _rows(frame)]
        yield pa.RecordBatch.from_pylist(rows, schema=OVERLAP)


def _rows(frame: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    truth = frame["truth"] or ()
    if any(each["mask"] is None for each in truth):
        return
    size = frame["full_height_px"], frame["full_width_px"]
    there, crowd = dict[str, npt.NDArray[np.bool_]](), np.zeros(size, bool)
    for each in truth:
        pixels = decode_mask(resize_rle(each["mask"], size=size))
        if each["iscrowd"]:
            crowd |= pixels
        else:
            there[each["label"]] = there.get(each["label"], False) | pixels
    seen = {each["label"]: decode_mask(resize_rle(each["mask"], size=size)) for each in frame["regions"] or ()}
    who = {"model_id": frame["model_id"], "media_id": frame["media_id"]}
    nothing = np.zeros(size, bool)
    for label in sorted({*there, *seen}):
        one, other = there.get(label, nothing) & ~crowd, seen.get(label, nothing) & ~crowd
        yield {**who, "label": label, "shared_px": int((one & other).sum()), "either_px": int((one | other).sum())}
    yield {**who, "label": None, "shared_px": None, "either_px": None}
