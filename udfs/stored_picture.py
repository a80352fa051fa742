"""Pictures as tables hold them."""

from __future__ import annotations

import io
import re
import warnings
from typing import Any

from PIL import ExifTags, Image, ImageOps

from ._errors import MediaError


def open_stored(image: Any, *, max_pixels: int) -> Image.Image:
    """A stored picture (JPEG, PNG or WebP) as upright RGB; what is transparent lies before black.

    Raises MediaError: image_missing, image_too_large, image_unsupported (more than 8 bits a channel), image_unreadable.
    """
    if not isinstance(image, bytes | bytearray | memoryview):  # pandas has several words for nothing
        raise MediaError("image_missing", "the row has no picture; extract frames with image_format jpeg or png")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # bounded here
            with Image.open(io.BytesIO(image), formats=("JPEG", "PNG", "WEBP")) as picture:
                width, height = picture.size
                if width * height > max_pixels:
                    text = f"the picture has {width} x {height} pixels; allowed are {max_pixels}"
                    raise MediaError("image_too_large", text)
                return _upright_rgb(picture)
    except MediaError:
        raise
    except Image.DecompressionBombError as error:
        raise MediaError("image_too_large", str(error)) from error
    except Exception as error:  # Pillow's decoders raise many kinds
        text = re.sub(r"\s*<.*>", "", str(error))  # the address of a buffer differs every time
        raise MediaError("image_unreadable", f"the stored picture cannot be decoded: {text}") from error


def _upright_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith(("I", "F")):
        text = f"the picture has {picture.mode!r} pixels, of more than 8 bits; convert it to 8 bits a channel"
        raise MediaError("image_unsupported", text)
    if picture.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        picture = ImageOps.exif_transpose(picture)
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    seen = picture.convert("RGBA")
    found = Image.new("RGB", seen.size)
    found.paste(seen, mask=seen.getchannel("A"))
    return found
