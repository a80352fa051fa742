"""Whether frames come at a constant rate, told from their times."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median

_COARSE_TICKS = 8  # with fewer ticks per frame, rounding cannot be told from a frame left out
_JITTER = 0.02  # of a frame's duration


def is_variable_rate(times: Sequence[int]) -> bool | None:
    """Whether presentation times (ticks, sorted) leave a constant rate by more than rounding to ticks explains.

    None where there are too few times to tell.
    """
    if len(times) < 3:
        return None
    steps = [later - earlier for earlier, later in pairwise(times)]
    usual = median(steps)
    if usual < _COARSE_TICKS:
        return any(step != usual for step in steps)
    if any(abs(step - usual) > max(1, _JITTER * usual) for step in steps):
        return True
    mean = (times[-1] - times[0]) / len(steps)
    allowed = max(2.0, 0.1 * usual)
    return any(abs(time - times[0] - index * mean) > allowed for index, time in enumerate(times))


def same_rate(windows: Sequence[Sequence[int]]) -> bool:
    """Whether the mean step is the same in all windows of times, within the error of two ticks a window."""
    long = [w for w in windows if len(w) >= 3]
    means = [(w[-1] - w[0]) / (len(w) - 1) for w in long]
    errors = [2 / (len(w) - 1) + _JITTER / 2 * mean for w, mean in zip(long, means, strict=True)]
    return all(abs(mean - means[0]) <= error + errors[0] for mean, error in zip(means, errors, strict=True))
