"""Where the content of a media lies: the first place at which it is as it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from . import uris
from ._errors import MediaError


def find_place(media: Mapping[str, Any]) -> tuple[str, uris.FileFacts]:
    """Where the content lies: the first place at which it is as it was. Raises what is wrong with the first of all."""
    problems: list[MediaError | OSError] = []
    for place in (media, *(media.get("elsewhere") or ())):
        try:
            if place.get("uri") is None:
                raise MediaError("source_missing", "the content is at no place that is known to be present")
            uri = _uri(place["uri"])
            return uri, check_unchanged(uri, place)
        except (MediaError, OSError) as error:
            problems.append(error)
    raise problems[0]


def _uri(text: str) -> str:
    try:
        return uris.to_uri(text)
    except ValueError as error:  # a null character: no store can hold such a name
        raise MediaError("read_failed", str(error)) from error


def check_unchanged(uri: str, known: Mapping[str, Any]) -> uris.FileFacts:
    """What the store says of the file now. Raises MediaError where that differs from what is known of it."""
    facts = uris.stat(uri)
    for name, found in asdict(facts).items():
        expected = known.get(name)
        if name != "etag" and expected is not None and found is not None and expected != found:
            raise MediaError(
                "source_changed", f"{uris.display(uri)} has {name} {found}, not {expected}: ingest it again"
            )
    return facts


def media_error(error: MediaError | OSError) -> MediaError:
    """What a row says of media that cannot be read."""
    if isinstance(error, MediaError):
        return error
    return MediaError("source_missing" if isinstance(error, FileNotFoundError) else "read_failed", str(error))
