"""Small pictures for pages."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd
from PIL import Image

from ._errors import MediaError
from .stored_picture import open_stored


def thumbnails(batches: Iterable[pd.DataFrame], *, side_px: int, max_pixels: int) -> Iterator[pd.DataFrame]:
    """The batches with `image` made small (a JPEG of at most `side_px` on its longer side), or null and `why`."""
    for batch in batches:
        found = [_thumbnail(image, side_px=side_px, max_pixels=max_pixels) for image in batch["image"]]
        names = ("image", "thumb_width_px", "thumb_height_px", "why")
        yield batch.assign(**{
            name: pd.Series([one[place] for one in found], index=batch.index, dtype=object)
            for place, name in enumerate(names)
        })  # fmt: skip


def data_uri(jpeg: bytes) -> str:
    """A small JPEG as a `data:` URI."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def _thumbnail(image: Any, *, side_px: int, max_pixels: int) -> tuple[bytes | None, int | None, int | None, str | None]:
    try:
        picture = open_stored(image, max_pixels=max_pixels)
    except MediaError as error:
        return None, None, None, "no picture is stored" if error.reason == "image_missing" else str(error)
    picture.thumbnail((side_px, side_px), Image.Resampling.LANCZOS, reducing_gap=2.0)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80, optimize=True)
    return buffer.getvalue(), *picture.size, None
