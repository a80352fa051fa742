"""Splits of media: whole groups, classes in proportion, and answers that stay as data is added."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from typing import Any

import pytest

from visionlake.udfs.split_groups import Media, find_groups, split_media

SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}


def split(media: list[Media], *, seed: int = 0, shares: Any = SHARES) -> dict[str, str]:
    return {each.media_id: each.split for each in split_media(media, shares=shares, seed=seed)}


def many(count: int, *, seed: int = 0) -> list[Media]:
    """Media of which a few have rare classes."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        counts = {"car": rng.randint(0, 20), "bus": rng.randint(0, 3) if rng.random() < 0.3 else 0,
                  "tram": rng.randint(1, 9) if number % 23 == 5 else 0}  # fmt: skip
        found.append(Media(media_id=f"{number:03d}", frames=rng.randint(5, 40), counts=counts))
    return found


def test_groups_are_what_is_connected_however_indirectly() -> None:
    media = [
        Media(media_id="a", frames=1, group="x"), Media(media_id="b", frames=1, near=["d"]),
        Media(media_id="c", frames=1, group="x", near=["b", "gone"]), Media(media_id="d", frames=1),
        Media(media_id="e", frames=1, group="y"), Media(media_id="f", frames=1),
    ]  # fmt: skip
    assert find_groups(media) == {"a": "a", "b": "a", "c": "a", "d": "a", "e": "e", "f": "f"}
    found = split(media)
    assert len({found[name] for name in "abcd"}) == 1


@pytest.mark.parametrize("seed", range(3))
def test_classes_are_spread_by_the_shares(seed: int) -> None:
    media = many(200, seed=seed)
    found = split(media)
    objects: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for each in media:
        objects[found[each.media_id]].update(each.counts)
        objects[found[each.media_id]]["frames"] += each.frames
    for label in ("car", "bus", "tram", "frames"):
        total = sum(counts[label] for counts in objects.values())
        for name, share in SHARES.items():
            # No split is off by more than what a medium or two may hold.
            assert objects[name][label] / total == pytest.approx(share, abs=0.12 if label == "tram" else 0.05), label


def test_many_rare_classes_do_not_make_small_splits_large() -> None:
    media = [Media(media_id=f"{n:03d}", frames=1, counts={"person": 1 + n % 5, f"rare {n // 3}": 1}) for n in range(90)]
    found = split(media)
    counts = Counter(found.values())
    assert all(abs(counts[name] - share * len(media)) <= 1 for name, share in SHARES.items()), counts
    people = Counter[str]()
    for each in media:
        people[found[each.media_id]] += each.counts["person"]
    assert people["train"] / people.total() == pytest.approx(SHARES["train"], abs=0.05)


def test_order_does_not_matter_and_the_seed_does() -> None:
    media = many(60)
    shuffled = random.Random(1).sample(media, len(media))
    assert split(media) == split(shuffled)
    assert split(media) != split(media, seed=1)


def test_what_has_a_split_keeps_it_as_data_is_added() -> None:
    media = many(120)
    before = split(media[:60])
    known = [Media(**{**vars(each), "before": before[each.media_id]}) for each in media[:60]]
    after = split(known + media[60:])
    assert {name: after[name] for name in before} == before
    frames = Counter[str]()
    for each in media:
        frames[after[each.media_id]] += each.frames
    for name, share in SHARES.items():
        assert frames[name] / sum(frames.values()) == pytest.approx(share, abs=0.05)


def test_new_media_of_a_group_go_where_it_is() -> None:
    old = [Media(media_id="a", frames=1, group="x", before="val"), Media(media_id="b", frames=9, before="train")]
    assert split([*old, Media(media_id="c", frames=50, group="x")])["c"] == "val"


def test_what_connects_groups_moves_them_to_the_most_held_out() -> None:
    old = [Media(media_id="a", frames=9, before="train"), Media(media_id="b", frames=1, before="test")]
    found = split([*old, Media(media_id="c", frames=5, near=["a", "b"])])
    assert found == {"a": "test", "b": "test", "c": "test"}


def test_what_was_given_stays_even_where_it_leaks() -> None:
    media = [Media(media_id="a", frames=1, group="x", given="train"), Media(media_id="b", frames=1, group="x",
             given="test"), Media(media_id="c", frames=1, group="x")]  # fmt: skip
    assert split(media) == {"a": "train", "b": "test", "c": "test"}


def test_a_split_that_was_given_to_one_moves_no_other_out_of_test() -> None:
    old = Media(media_id="a", frames=1, group="x", before="test")
    media = [old, Media(media_id="b", frames=1, group="x", given="train"), Media(media_id="c", frames=1, group="x")]
    assert split(media) == {"a": "test", "b": "train", "c": "test"}, "torn, which the gate tells"
    chosen_again = Media(media_id="a", frames=1, group="x", before="test", given="train")
    assert {*split([chosen_again, *media[1:]]).values()} == {"train"}


def test_few_media_and_splits_of_other_names() -> None:
    assert split([]) == {}
    assert split([Media(media_id="a", frames=3)]) == {"a": "train"}
    four = [Media(media_id=name, frames=10) for name in "abcd"]
    assert Counter(split(four, shares={"fit": 0.5, "hold": 0.5}).values()) == {"fit": 2, "hold": 2}
