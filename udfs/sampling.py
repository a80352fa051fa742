"""Which frames of a stream are kept: a grid in time, a range of time, a count; all in exact rational arithmetic.

Floating point would decide by rounding noise about frames that lie on a grid line.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from .frame_types import FrameOptions

Verdict = Literal["keep", "skip", "stop"]


@dataclass
class Sampler:
    """Decides frame by frame, in presentation order, for one stream.

    A frame is kept when it is the first with `(pts - origin) * time_base + time_base / 2 >= k / fps` for some k = 0, 1,
    2, ...; the half tick keeps every frame of a file whose ticks are coarser than its rate. `origin` is the pts of the
    first displayed frame. `start_s` (inclusive) and `end_s` (exclusive) count from it and do not move the grid: a grid
    point whose frame lies outside is passed over. `keyframes_only` lets only keyframes be the first. Of these frames
    only those at a pts in `wanted` are kept, where that is given.
    """

    options: FrameOptions
    time_base: Fraction
    origin: int
    wanted: Collection[int] | None = None
    kept: int = 0
    _next_point: int = field(default=0, init=False)
    _last_wanted: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._last_wanted = max(self.wanted or (), default=0)

    @property
    def is_done(self) -> bool:
        """Whether all that is wanted was kept."""
        return self.wanted is not None and self.kept >= len(self.wanted)

    def judge(self, pts: int, *, is_keyframe: bool = True) -> Verdict:
        """Whether to keep the frame at `pts`; "stop" when neither it nor any later frame can be kept."""
        options = self.options
        if options.max_frames is not None and self.kept >= options.max_frames:
            return "stop"
        elapsed_s = (pts - self.origin) * self.time_base
        if options.end_s is not None and elapsed_s >= options.end_s:
            return "stop"
        if options.keyframes_only and not is_keyframe:
            return "skip"
        if options.fps is not None:
            reached = (elapsed_s + self.time_base / 2) * options.fps
            if reached < self._next_point:
                return "skip"
            self._next_point = reached.numerator // reached.denominator + 1
        if options.start_s is not None and elapsed_s < options.start_s:
            return "skip"
        if self.wanted is not None and pts not in self.wanted:
            return "skip" if pts < self._last_wanted else "stop"
        self.kept += 1
        return "keep"
