"""What a detector is shown of a picture: the picture alone, or tiles of it, mirrored and scaled ones too."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import product
from typing import Any, Literal

from ._errors import ModelError

SCALES = (0.1, 4.0)
LEAST_TILE_PX = 32
MOST_OVERLAP = 0.9

BesideTiles = Literal["picture", "nothing"]
TileMerge = Literal["nmm", "nms"]
Flips = Literal["none", "horizontal"]
ViewMerge = Literal["wbf", "nms"]


@dataclass(frozen=True, kw_only=True)
class ViewOptions:
    """Settings of views. The default is the picture alone.

    Tiles are parts of equal size, as of SAHI (Akyon et al., arXiv:2202.06934); a picture that fits into one is not cut.
    They lie side by side with `tile_overlap`, a share of their sides; `beside_tiles` says whether the whole picture is
    looked at too. Boxes of different tiles that overlap by more than `tile_merge_overlap` are one. Of two that are
    seen whole, the better one stays; two that a tile's border cuts off become the box that holds both ("nmm"), or the
    better one stays ("nms").

    Every one of `scales`, factors of the picture's sides, is looked at as it is and, with flips "horizontal", mirrored.
    A network that brings all pictures to one size sees something new in scales only together with tiles. What is found
    goes together by weighted boxes fusion or non-maximum suppression at `view_merge_iou`. Let that not be below the
    detector's own `nms_iou`, or things that the detector tells apart become one.
    """

    tile_width_px: int | None = None
    tile_height_px: int | None = None
    tile_overlap: float = 0.2
    beside_tiles: BesideTiles = "picture"
    tile_merge: TileMerge = "nmm"
    tile_merge_overlap: float = 0.5
    flips: Flips = "none"
    scales: tuple[float, ...] = (1.0,)
    view_merge: ViewMerge = "wbf"
    view_merge_iou: float = 0.65

    @property
    def tile_px(self) -> tuple[int, int] | None:
        """Width and height of tiles, if there are any."""
        if self.tile_width_px is None or self.tile_height_px is None:
            return None
        return self.tile_width_px, self.tile_height_px

    @property
    def looks(self) -> tuple[tuple[float, bool], ...]:
        """Scale, and whether mirrored, of each picture that is looked at or cut into tiles."""
        return tuple(product(self.scales, (False, True) if self.flips == "horizontal" else (False,)))

    def changed(self) -> dict[str, Any]:
        """The settings that are not the default.

        Raises ModelError for values that are not allowed, and for settings that would have no effect without others.
        """
        self._check_values()
        default = ViewOptions()
        names = [each.name for each in fields(self)]
        changed = {name: getattr(self, name) for name in names if getattr(self, name) != getattr(default, name)}
        if self.tile_px is None:
            _refuse([name for name in changed if "tile" in name], without="both tile_width_px and tile_height_px")
        if len(self.looks) < 2:
            _refuse([name for name in changed if "view" in name], without="flips or several scales")
        return changed

    def _check_values(self) -> None:
        (least, most), scales = SCALES, self.scales
        tile = [side for side in (self.tile_width_px, self.tile_height_px) if side is not None]
        are_scales = len({*scales}) == len(scales) > 0 and all(least <= scale <= most for scale in scales)
        for name, is_right, allowed in (
            ("tile_width_px, tile_height_px", all(s >= LEAST_TILE_PX for s in tile), f"at least {LEAST_TILE_PX}"),
            ("tile_overlap", 0 <= self.tile_overlap <= MOST_OVERLAP, f"0 to {MOST_OVERLAP}"),
            ("tile_merge_overlap", 0 < self.tile_merge_overlap <= 1, "above 0, at most 1"),
            ("view_merge_iou", 0 < self.view_merge_iou <= 1, "above 0, at most 1"),
            ("scales", are_scales, f"{least} to {most}, each once"),
        ):
            if not is_right:
                values = ", ".join(str(getattr(self, each)) for each in name.split(", "))
                raise ModelError(f"{name} = {values}; allowed is {allowed}")


def _refuse(idle: list[str], *, without: str) -> None:
    if idle:
        raise ModelError(f"{', '.join(idle)}: no effect without {without}; add what is missing, or leave it out")
