"""Which media are for training and which for testing: whole groups, classes in proportion, earlier answers kept.

Classes are balanced by iterative stratification (Sechidis, Tsoumakas, Vlahavas: On the Stratification of Multi-Label
Data, 2011), with groups of media in place of examples: the class with the fewest objects left goes first, and each of
its groups to the split that lacks most of it, for its share: so that large and small groups go everywhere alike. Where
there are groups enough, a split that lacks less than half of a group's objects or frames does not get it: else each of
many rare classes would put one of its few pictures into every split, and small splits would become too large.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

FEW_GROUPS = 20
"""With fewer groups than that, shares are a matter of luck; what counts then is that no split is left empty."""
FRAMES = ""  # counted like a class, so that splits get their share of frames as well


@dataclass(frozen=True, kw_only=True)
class Media:
    """A media with what has to stay together with it: others of its `group`, and those that it is `near`.

    `counts` are its objects by class. `given` is a split that somebody has chosen, `before` the one that it has had.
    """

    media_id: str
    frames: int
    group: str | None = None
    near: Sequence[str] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    given: str | None = None
    before: str | None = None


@dataclass(frozen=True, kw_only=True)
class Placed:
    """Where a media went, with its group: the smallest id of those in it."""

    media_id: str
    group_id: str
    split: str


def find_groups(media: Sequence[Media]) -> dict[str, str]:
    """The group of each media: those that are connected, however indirectly, by a group or by being near."""
    parent = {each.media_id: each.media_id for each in media}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    def connect(one: str, other: str) -> None:
        first, last = sorted((root(one), root(other)))
        parent[last] = first

    first_of: dict[str, str] = {}
    for each in media:
        if each.group is not None:
            connect(first_of.setdefault(each.group, each.media_id), each.media_id)
        for other in each.near:
            if other in parent:
                connect(each.media_id, other)
    return {name: root(name) for name in parent}


def split_media(media: Sequence[Media], *, shares: Mapping[str, float], seed: int) -> list[Placed]:
    """The split of each media. `shares` are parts of 1; of two splits the later one is held out more.

    Whole groups go to one split. A group of which media have had a split stays there; where they have had several, as
    new media have connected groups, it goes to the most held out of these. What was given stays as it is, also where
    it tears a group apart: it does not move others out of a split that is held out more.
    """
    groups: defaultdict[str, list[Media]] = defaultdict(list)
    group_of = find_groups(media)
    for each in sorted(media, key=lambda each: each.media_id):
        groups[group_of[each.media_id]].append(each)
    order = {name: place for place, name in enumerate(shares)}
    splits: dict[str, str] = {}
    for name, members in groups.items():
        if known := [split for each in members if (split := each.given or each.before)]:
            splits[name] = max(known, key=lambda split: (order.get(split, -1), split))
    _stratify(groups, splits, shares=shares, seed=seed)
    return [
        Placed(media_id=each.media_id, group_id=name, split=each.given or splits[name])
        for name, members in sorted(groups.items())
        for each in members
    ]


def _stratify(
    groups: Mapping[str, Sequence[Media]], splits: dict[str, str], *, shares: Mapping[str, float], seed: int
) -> None:
    """Give each group that has no split the one that lacks it most."""
    counts = {name: _counts(members) for name, members in groups.items()}
    total = sum(counts.values(), Counter[str]())
    lacking = {split: {label: float(n) for label, n in total.items()} for split in shares}
    for name, split in splits.items():
        _take(lacking, split, counts[name], shares)
    chance = {name: hashlib.sha256(f"{seed}/{name}".encode()).hexdigest() for name in groups}
    free = {name for name in groups if name not in splits}
    holders: defaultdict[str, set[str]] = defaultdict(set)
    for name in free:
        for label in counts[name]:
            holders[label].add(name)
    left = {label: sum(counts[name][label] for name in names) for label, names in holders.items()}
    while free:
        # Frames, which all groups have, come last.
        label = min((n == FRAMES, left[n], n) for n in left if holders[n])[2]
        for name in sorted(holders[label], key=lambda name: (-counts[name][label], chance[name])):
            split = _neediest(lacking, counts[name], label, shares=shares, is_few=len(groups) < FEW_GROUPS)
            splits[name] = split
            _take(lacking, split, counts[name], shares)
            free.discard(name)
            for other, n in counts[name].items():
                holders[other].discard(name)
                left[other] -= n


def _neediest(
    lacking: Mapping[str, Mapping[str, float]],
    counts: Mapping[str, int],
    label: str,
    *,
    shares: Mapping[str, float],
    is_few: bool,
) -> str:
    """The split that lacks most of a class, of those that lack half of the group's objects and frames; else frames."""
    wanting = [s for s in shares if is_few or all(lacking[s][k] * shares[s] >= counts[k] / 2 for k in (label, FRAMES))]
    first = label if wanting else FRAMES
    return max(wanting or shares, key=lambda s: (lacking[s][first], lacking[s][FRAMES], shares[s], s))


def _counts(members: Sequence[Media]) -> Counter[str]:
    found = Counter({FRAMES: sum(each.frames for each in members)})
    for each in members:
        found.update({label: n for label, n in each.counts.items() if n and label != FRAMES})
    return found


def _take(
    lacking: Mapping[str, dict[str, float]], split: str, counts: Mapping[str, int], shares: Mapping[str, float]
) -> None:
    for label, n in counts.items() if split in lacking else ():
        lacking[split][label] -= n / shares[split]


def place_media(
    batches: Iterable[pa.RecordBatch], *, schema: pa.Schema, shares: Mapping[str, float], seed: int
) -> Iterator[pa.RecordBatch]:
    """Rows of `schema` (media_id, group_id, split, frames, near) for all media, which one task has to see together."""
    rows = [row for batch in batches for row in batch.to_pylist()]
    media = [Media(**{**row, "counts": dict(row["counts"] or ()), "near": row["near"] or ()}) for row in rows]
    facts: dict[str, dict[str, Any]] = {row["media_id"]: row for row in rows}
    placed = [
        {"media_id": each.media_id, "group_id": each.group_id, "split": each.split,
         "frames": facts[each.media_id]["frames"], "near": facts[each.media_id]["near"] or []}
        for each in split_media(media, shares=shares, seed=seed)
    ]  # fmt: skip
    if placed:
        yield pa.RecordBatch.from_pylist(placed, schema=schema)
