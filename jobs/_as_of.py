"""What a lake was: a time, the end of a run, or versions of tables, and which version of each table that means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from visionlake.errors import UsageError
from visionlake.expectations import declaration, declared_names
from visionlake.expectations._table import View

if TYPE_CHECKING:
    from ._lake import Lake

_RUN = re.compile(r"\d{8}T\d{6}-[0-9a-f]{6}")
_PART = re.compile(r"\s*(?P<table>\w+)\s*=\s*(?P<version>\d{1,18})\s*")
_ALLOWED = (
    "allowed is a time (2026-11-22, 2026-11-22T03:00, 2026-11-22T03:00:05+01:00; UTC where it names no zone), the id "
    "of a run (`visionlake runs` lists them), or versions of tables (frames=12,detections=7)"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_COMMITS = 100
_STEPS = 200  # commits of `waves` among which a run's own are sought
_COARSE = timedelta(seconds=2)  # some stores know the times of files to the second only


@dataclass(frozen=True, kw_only=True)
class AsOf:
    """A state of a lake: at a `time`, as a run left it, or at `versions` of some tables and the newest of all others.

    Just one of the three is set. `text` is how it was asked for.
    """

    text: str
    time: datetime | None = None
    run_id: str | None = None
    versions: Mapping[str, int] = field(default_factory=dict)


def parse_as_of(text: str | datetime) -> AsOf:
    """What a text, or a time, means. Raises UsageError that says what is allowed."""
    if isinstance(text, datetime):
        return AsOf(text=text.isoformat(), time=_in_utc(text, text.isoformat()))
    wanted = text.strip()
    if _RUN.fullmatch(wanted):
        return AsOf(text=wanted, run_id=wanted)
    if "=" in wanted:
        return AsOf(text=wanted, versions=_versions(wanted))
    try:
        found = datetime.fromisoformat(wanted)
    except ValueError:
        raise UsageError(f"as of {text!r}: {_ALLOWED}") from None
    return AsOf(text=wanted, time=_in_utc(found, wanted))


def _in_utc(time: datetime, text: str) -> datetime:
    try:
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except OverflowError:
        raise UsageError(f"as of {text!r}: the time is beyond the years 1 to 9999 in UTC; {_ALLOWED}") from None


def _versions(text: str) -> dict[str, int]:
    versions: dict[str, int] = {}
    for part in text.split(","):
        found = _PART.fullmatch(part)
        if found is None:
            raise UsageError(f"as of {text!r}: {part.strip()!r} is no table=version; {_ALLOWED}")
        name = found["table"]
        if name in versions:
            raise UsageError(f"as of {text!r}: {name} is there twice; name each table once")
        declared = declaration(name) if name in declared_names() else None
        if isinstance(declared, View):
            raise UsageError(
                f"as of {text!r}: {name} is a view without versions of its own; name {' and '.join(declared.reads)}"
            )
        versions[name] = int(found["version"])
    return versions


class Moment:
    """Which version of each table a lake had. `now` is the lake as it is. Asks once for each table.

    Raises UsageError where there are no such versions, or no such run.
    """

    def __init__(self, now: Lake, as_of: AsOf) -> None:
        self._now, self._as_of = now, as_of
        self._time, self._outputs = as_of.time, dict(as_of.versions)
        self._known: dict[str, int | None] = {}
        for name, version in as_of.versions.items():
            self._check(name, version)
        if as_of.run_id is not None:
            self._time, self._outputs = _end_of(now, as_of.run_id)

    def version(self, name: str) -> int | None:
        """The version of a table, or None where it was not there yet."""
        if name not in self._known:
            self._known[name] = self._find(name) if self._now.exists(name) else None
        return self._known[name]

    def _find(self, name: str) -> int | None:
        if name in self._outputs:
            return self._outputs[name]
        if self._time is None:
            return self._now.version(name)
        if name == "waves" and self._as_of.run_id is not None:
            return _last_row_of(self._now, self._as_of.run_id, self._time)
        return _version_at(self._now, name, self._time)

    def _check(self, name: str, version: int) -> None:
        if not self._now.exists(name):
            there = ", ".join(self._now.names()) or "no tables yet"
            raise UsageError(f"as of {self._as_of.text!r}: no table {name!r} in lake {self._now.uri}; it has {there}")
        if version > (newest := self._now.version(name)):
            raise UsageError(f"as of {self._as_of.text!r}: the newest version of {name} is {newest}")


def _version_at(now: Lake, name: str, time: datetime) -> int | None:
    """The newest version that was committed by then, or None where the table is younger."""
    at_ms = (time - _EPOCH) // timedelta(milliseconds=1)
    limit = _COMMITS
    while True:
        commits = now.commits(name, limit=limit)
        found = next((version for version, committed_ms in commits if committed_ms <= at_ms), None)
        if found is not None:
            return found
        first = commits[-1][0]
        if first == 0:
            return None
        if len(commits) < limit:
            oldest = datetime.fromtimestamp(commits[-1][1] / 1000, UTC).isoformat(timespec="seconds")
            raise UsageError(
                f"the log of table {name!r} goes back to version {first} of {oldest} only, as long as the table's "
                "delta.logRetentionDuration says; choose a later time"
            )
        limit *= 8


def _end_of(now: Lake, run_id: str) -> tuple[datetime, dict[str, int]]:
    """When a run wrote its last wave, and the versions that its waves had written of their tables."""
    from pyspark.sql import functions as F

    if not now.exists("waves"):
        raise UsageError(f"as of {run_id!r}: nothing ran in lake {now.uri} yet")
    waves = now.table("waves")
    mine = waves.where(F.col("run_id") == run_id)
    at = F.col("finished_at")
    own = F.max(F.when(F.col("status") != "superseded", at))  # a later run says that a wave is superseded
    # As a number: a timestamp comes to Python in the zone of this machine.
    (ended,) = mine.agg(F.unix_micros(F.coalesce(own, F.max(at))).alias("at_us")).collect()
    if ended["at_us"] is None:
        newest = waves.groupBy("run_id").agg(F.max("finished_at").alias("at")).orderBy(F.desc("at")).limit(5).collect()
        there = ", ".join(row["run_id"] for row in newest)
        raise UsageError(f"as of {run_id!r}: no such run wrote a wave; the latest that did are {there}")
    outputs = mine.select(F.explode("outputs").alias("output")).groupBy("output.table")
    written = outputs.agg(F.max("output.version").alias("version")).collect()
    return _EPOCH + timedelta(microseconds=ended["at_us"]), {row["table"]: row["version"] for row in written}


def _last_row_of(now: Lake, run_id: str, time: datetime) -> int:
    """The version of `waves` with the last row of a run, which was committed shortly after the time that is in it."""
    from pyspark.sql import functions as F

    before = _version_at(now, "waves", time - _COARSE)
    first, head = 0 if before is None else before, now.version("waves")
    changes = now.changes("waves", first=first, last=min(head, first + _STEPS))
    is_until_then = F.unix_micros("finished_at") <= (time - _EPOCH) // timedelta(microseconds=1)
    mine = changes.where((F.col("run_id") == run_id) & is_until_then & (F.col("_change_type") != "update_preimage"))
    (found,) = mine.agg(F.max("_commit_version").alias("version")).collect()
    return head if found["version"] is None else found["version"]
