"""visionlake: raw images and video become trusted, labelled, versioned data on Spark."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visionlake._notebook import detect_objects, extract_frames, run, show_frames
    from visionlake.jobs._lake import Lake

__all__ = ["Lake", "__version__", "detect_objects", "extract_frames", "run", "show_frames"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: workers and the command line need none of it."""
    if name == "Lake":
        from visionlake.jobs._lake import Lake

        return Lake
    if name in ("detect_objects", "extract_frames", "run", "show_frames"):
        from visionlake import _notebook

        return getattr(_notebook, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
