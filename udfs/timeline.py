"""Presentation times of a stream's frames, in presentation order, made strictly increasing or refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from .frame_types import FrameError

_MAX_TICKS = 1 << 62  # times the numerator of the time base; twice as much no longer fits into 64 bits

TIMESTAMP_WRAP = 1 << 33
"""MPEG transport and program streams count 90 kHz ticks in 33 bits."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """When a frame is shown: `pts` in ticks; `pts_offset` of them were added to the container's own time."""

    pts: int
    pts_offset: int
    frame_index: int


@dataclass
class Timeline:
    """Times of one stream. Feed it every displayed frame in presentation order.

    With `source` "container", times are the container's. A jump back of more than one second (concatenated recordings)
    adds an offset from there on, such that frames follow on by one frame's duration; so does a jump ahead of more than
    half a `wrap`, which is how a jump back looks after a reader has undone a wrap that was none. A frame without a time
    follows its predecessor by one frame's duration. A frame that is not later than the one before is an error, and the
    next one is compared with the last good one. So is a frame whose time does not fit into a table's 64 bits.

    With `source` "index", the time is the frame's index, and `time_base` must be one frame's duration.

    One frame's duration is what the frame before says, else the step before it, else `nominal_duration`, in ticks.
    """

    stream_index: int
    time_base: Fraction
    nominal_duration: int
    source: Literal["container", "index"] = "container"
    wrap: int | None = None
    pts_offset: int = field(default=0, init=False)
    frame_count: int = field(default=0, init=False)
    last: Moment | None = field(default=None, init=False)
    _step: int = field(default=0, init=False)
    _duration: int = field(default=0, init=False)

    def place(self, pts: int | None, *, dts: int | None = None, duration: int = 0) -> Moment | FrameError:
        """The moment of the next frame, given what the container says in ticks (`duration` 0: unknown)."""
        index = self.frame_count
        self.frame_count += 1
        if self.source == "index":
            self.last = Moment(pts=index, pts_offset=0, frame_index=index)
            return self.last
        placed, offset = self._pts(pts, dts)
        if placed is None:
            return self._error(None, "pts_missing", f"frame {index} has no time, nor has any before it")
        if not all(map(self._is_in_range, (pts or 0, offset, placed))):
            return self._error(None, "pts_out_of_range", f"frame {index} at pts {placed} is beyond what 64 bits hold")
        self.pts_offset = offset
        if self.last is not None:
            if placed <= self.last.pts:
                return self._error(
                    placed,
                    "pts_not_increasing",
                    f"frame {index} at pts {placed} is not later than the frame before, at pts {self.last.pts}",
                )
            self._step = placed - self.last.pts
        self._duration = duration
        self.last = Moment(pts=placed, pts_offset=self.pts_offset, frame_index=index)
        return self.last

    def _pts(self, pts: int | None, dts: int | None) -> tuple[int | None, int]:
        """The time in ticks and the offset that it holds."""
        if self.last is None:
            return pts if pts is not None else dts, 0
        follow_on = self.last.pts + (self._duration or self._step or self.nominal_duration)
        if pts is None:
            return follow_on, self.pts_offset
        ahead = pts + self.pts_offset - self.last.pts
        jumped_back = ahead * self.time_base < -1
        if jumped_back or (self.wrap is not None and ahead > self.wrap // 2):
            return follow_on, follow_on - pts
        return pts + self.pts_offset, self.pts_offset

    def _is_in_range(self, ticks: int) -> bool:
        return abs(ticks) * self.time_base.numerator < _MAX_TICKS

    def _error(self, pts: int | None, reason: str, message: str) -> FrameError:
        return FrameError(stream_index=self.stream_index, pts=pts, reason=reason, message=message)
