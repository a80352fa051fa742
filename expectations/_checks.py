"""What a gate's verdict is, and what can be said about checks without Great Expectations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

from visionlake.errors import ConfigError

from ._table import Check, Severity

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

Status = Literal["passed", "skipped", "warned", "stopped", "errored"]

SHOWN_KEYS = 5


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """A check's verdict on a wave.

    `expected` and `observed` are for people; `value` is the number that was seen, of failing rows their share. `keys`
    are those of some offending rows, joined by /. `skipped` means that the wave had nothing to judge; `errored` that
    the check could not be made: it counts as its severity, never as passed.
    """

    name: str
    severity: Severity
    status: Status
    expected: str
    observed: str
    value: float | None = None
    keys: tuple[str, ...] = ()
    message: str = ""

    @property
    def stops(self) -> bool:
        """Whether nothing of the wave may be published."""
        return self.status == "stopped" or (self.status == "errored" and self.severity == "stop")

    @property
    def failed(self) -> bool:
        """Whether there is anything to tell: neither passed nor skipped."""
        return self.status not in ("passed", "skipped")

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain types, as `waves.checks` and JSON hold them."""
        return asdict(self) | {"keys": list(self.keys)}


def check_names(*checks: Iterable[Check]) -> tuple[str, ...]:
    """Names of the checks of a stage and of its tables."""
    return tuple(check.name for group in checks for check in group)


def validate_severity(severity: Mapping[str, Severity], names: Sequence[str]) -> None:
    """Raise ConfigError where `severity` names a check that there is not."""
    for name in severity:
        if name not in names:
            raise ConfigError(f"severity: there is no check {name!r}{did_you_mean(name, names)}")


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """The end of a message: the nearest right name, else the names there are if they are few."""
    names = sorted(names)
    nearest = get_close_matches(name, names, n=1, cutoff=0.6)
    if nearest:
        return f"; did you mean {nearest[0]!r}?"
    return f"; there are: {', '.join(names)}" if 0 < len(names) <= 20 else ""


def with_offending_keys(
    results: Iterable[CheckResult], checks: Iterable[Check], rows: DataFrame, *, key: Sequence[str]
) -> list[CheckResult]:
    """The results, with keys of up to 5 offending rows where a check failed that can pick them.

    Runs one small Spark job per such check, none where everything passed.
    """
    from pyspark.sql import functions as F

    predicates = {check.name: check.offending for check in checks if check.offending}
    shown = []
    for result in results:
        if result.status in ("warned", "stopped") and result.name in predicates:
            joined = F.concat_ws("/", *(F.col(name).cast("string") for name in key)).alias("key")
            bad = rows.where(predicates[result.name]).select(joined).limit(SHOWN_KEYS)
            result = replace(result, keys=tuple(row["key"] for row in bad.collect()))
        shown.append(result)
    return shown


def failure(severity: Severity) -> Status:
    """The status of a check that does not hold."""
    return "stopped" if severity == "stop" else "warned"


def as_float(value: object) -> float | None:
    """The value as the number of a result, where it is one."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
