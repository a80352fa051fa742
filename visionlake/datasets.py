"""Frames and labels of a lake as PyTorch data sets, read without Spark.

    from visionlake.datasets import FrameDataset, collate

    data = FrameDataset("lake", split="train", version={"frames": 3, "annotations": 7})
    image, target = data[0]
    loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True, num_workers=4, collate_fn=collate)

Samples are what torchvision's detection models and references take. This module needs torch; it does not import Spark.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Real
from typing import Any, Literal, TypedDict, Unpack

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from visionlake.errors import UsageError
from visionlake.udfs.uris import display

from ._dataset_index import Frames, check_pictures, media_of_split, read_frames
from ._dataset_labels import LabelChoice, load_labels, only_labels
from ._dataset_samples import Pictures, Samples, Target, Transform
from ._dataset_stream import Share, epoch_groups, even_groups, mixed, read_images
from ._dataset_tables import LakeTable, check_versions, open_table

__all__ = ["FrameDataset", "FrameStream", "Target", "collate"]

_TABLES = ("frames", "annotations", "detections", "splits")
_MIB = 1 << 20


class FrameOptions(TypedDict, total=False):
    """What `FrameDataset` takes by name, for `FrameStream` to take it too."""

    labels: str | Sequence[str] | None
    split: str | None
    split_set: str | None
    version: Mapping[str, int] | None
    classes: Sequence[str] | None
    min_score: float
    annotator: str | None
    masks: bool
    unlabelled: Literal["leave_out", "empty"]
    transform: Transform | None
    max_pixels: int
    storage_options: Mapping[str, str] | None


class _LabelledFrames:
    """Which frames there are, and what is in them: what both kinds of data sets share."""

    def __init__(
        self,
        lake: str | os.PathLike[str],
        *,
        labels: str | Sequence[str] | None = None,
        split: str | None = None,
        split_set: str | None = None,
        version: Mapping[str, int] | None = None,
        classes: Sequence[str] | None = None,
        min_score: float = 0.0,
        annotator: str | None = None,
        masks: bool = False,
        unlabelled: Literal["leave_out", "empty"] = "leave_out",
        transform: Transform | None = None,
        max_pixels: int = 89_478_485,
        storage_options: Mapping[str, str] | None = None,
    ) -> None:
        if unlabelled not in ("leave_out", "empty"):
            raise UsageError(f'unlabelled = {unlabelled!r}: allowed are "leave_out" and "empty"')
        if split is None and split_set is not None:
            raise UsageError(f"split_set = {split_set!r} says nothing without a split; give both, or neither")
        if isinstance(min_score, bool) or not isinstance(min_score, Real) or not 0 <= float(min_score) <= 1:
            raise UsageError(f"min_score = {min_score!r}: allowed is a number from 0 to 1")
        pinned = check_versions(version, _TABLES)

        def opened(name: str) -> LakeTable:
            return open_table(lake, name, version=pinned.get(name), storage_options=storage_options)

        choice = LabelChoice(
            names=only_labels(opened) if labels is None else _names("labels", labels, alone=True),
            classes=None if classes is None else _names("classes", classes),
            min_score=min_score,
            annotator=annotator,
            masks=masks,
            keep_unlabelled=unlabelled == "empty",
        )
        wanted = ["frames", *(kind.table for kind in choice.kinds), *(["splits"] if split is not None else [])]
        self._tables = {name: opened(name) for name in wanted}
        frames = read_frames(self._tables["frames"])
        if split is not None:
            frames = frames.of_media(media_of_split(self._tables["splits"], split=split, split_set=split_set))
        frames, found = load_labels(among := frames, self._tables, choice)
        if not len(frames):
            which = f"of {len(among)} frames" + (f" in split {split!r}" if split is not None else "")
            raise UsageError(
                f"{which}, none is labelled by {', '.join(choice.names)}; take other labels"
                + (', or unlabelled = "empty"' if len(among) else "")
            )
        check_pictures(frames)
        self._lake = str(lake)
        self._samples = Samples(frames=frames, labels=found, masks=masks, max_pixels=max_pixels, transform=transform)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes: the first has id 1 in targets, the second 2, and so on; 0 is the background."""
        return self._samples.labels.classes

    @property
    def versions(self) -> dict[str, int]:
        """The Delta version of each table that is read: give them as `version` for the same samples again."""
        return {name: table.version for name, table in self._tables.items()}

    @property
    def frame_count(self) -> int:
        """How many frames there are."""
        return len(self._samples.frames)

    @property
    def _frames(self) -> Frames:
        return self._samples.frames

    @property
    def _table(self) -> LakeTable:
        return self._tables["frames"]

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({display(self._lake)!r}, {self.frame_count} frames, {len(self.classes)} classes, "
            f"versions={self.versions})"
        )


class FrameDataset(_LabelledFrames, Dataset[tuple[Any, Any]]):
    """The labelled frames of a lake, by position: `image, target = data[0]`, in the order of (media_id, stream, pts).

    `image` is a uint8 tensor (3, height, width), RGB. `target` has, for N objects, `boxes` float32 (N, 4) as x_min,
    y_min, x_max, y_max in pixels of the image and inside it; `labels` int64 (N), from 1 in the order of `classes`;
    `area` float32 (N) in square pixels: what the annotation states, else the mask's, else the box's; `iscrowd` int64
    (N); `image_id`, the position; `frame`, (media_id, stream_index, pts); with `masks`, `masks` uint8
    (N, height, width).

    `lake` is a folder or a URI; `storage_options` go to deltalake. `labels` names a source of annotations, or a model
    by its whole model_id, which has an @, or several: the first one that has looked at a frame counts for it, also if
    it has seen nothing. Without, it is the lake's only source, or its only model where there are no annotations.

    Of several `annotator`s of a frame the first by name counts, or the one given. `min_score` holds for models.
    `classes` are the names to learn, with a warning for those that no object has, and other objects are left out;
    without it, all names that these labels have in any frame, sorted. Frames that nobody has looked at are left out, or
    with `unlabelled = "empty"` have no objects.

    `split` is a split of the `split_set` of table `splits`. `version` maps tables to Delta versions; of others the
    newest is taken, and `versions` tells which. `transform(image, target)` returns what a sample is to be. Pictures of
    more than `max_pixels` are refused.

    Keys and labels are read once, here, and are held in memory; pictures are read when asked for, a row group at a
    time, of which each process keeps `cache_bytes`. For shuffled epochs over more than that, `FrameStream` is faster.

    Raises UsageError where something does not fit, and, for a picture or mask that cannot be decoded, VisionlakeError.
    """

    def __init__(
        self, lake: str | os.PathLike[str], *, cache_bytes: int = 512 * _MIB, **options: Unpack[FrameOptions]
    ) -> None:
        super().__init__(lake, **options)
        self._pictures = Pictures(table=self._table, cache_bytes=cache_bytes)

    def __len__(self) -> int:
        return self.frame_count

    def __getitem__(self, position: int) -> tuple[Any, Any]:
        """The sample at a position; from the end where that is negative. Raises IndexError outside the data set."""
        place = operator.index(position)
        place += len(self) if place < 0 else 0
        if not 0 <= place < len(self):
            raise IndexError(f"position {position} is outside of a data set of {len(self)} frames")
        return self._samples.make(place, self._pictures.image(self._frames, place))

    def get_height_and_width(self, position: int) -> tuple[int, int]:
        """Size of a frame in pixels, without reading it: torchvision's references group frames by it."""
        return int(self._frames.height_px[position]), int(self._frames.width_px[position])


class FrameStream(_LabelledFrames, IterableDataset[tuple[Any, Any]]):
    """The samples of `FrameDataset`, and its options, one after the other: each exactly once in an epoch.

    Ranks and the workers of a DataLoader share the frames out among them; all have to have as many workers, and the
    same versions. `rank` and `world_size` are those of torch.distributed where that is initialised, else 0 and 1. What
    they get differs by one frame at most. Where ranks have to step together, `even = True` gives each worker of each
    rank as many, and leaves out the few frames of an epoch that are over, others in each (see `set_epoch`).

    Row groups are read from beginning to end. With `shuffle` their order is drawn anew for each epoch (say which one by
    `set_epoch`) and `seed`; each worker reads several at once and mixes them in a buffer of `buffer_bytes` of encoded
    pictures. The order is the same for the same seed, epoch, ranks and workers. Without, it is that in which frames are
    stored.
    """

    def __init__(
        self,
        lake: str | os.PathLike[str],
        *,
        shuffle: bool = False,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        even: bool = False,
        buffer_bytes: int = 128 * _MIB,
        **options: Unpack[FrameOptions],
    ) -> None:
        if (rank is None) != (world_size is None):
            raise UsageError(f"rank = {rank}, world_size = {world_size}: give both, or neither")
        if rank is not None and world_size is not None and not 0 <= rank < world_size:
            raise UsageError(f"rank = {rank}, world_size = {world_size}: a rank is from 0 to world_size - 1")
        if seed < 0:
            raise UsageError(f"seed = {seed}: allowed is a whole number from 0 on")
        super().__init__(lake, **options)
        self._shuffle, self._seed, self._even, self._buffer_bytes = shuffle, seed, even, buffer_bytes
        self._rank = None if rank is None or world_size is None else (rank, world_size)
        # Shared memory: workers that stay from epoch to epoch see it change.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next iteration is, from 0; every one has an order of its own. Raises UsageError below 0."""
        if epoch < 0:
            raise UsageError(f"epoch = {epoch}: allowed is a whole number from 0 on")
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        worker = get_worker_info()
        rank, ranks = self._rank or _distributed_rank() or (0, 1)
        worker_id, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        share = Share(part=rank * workers + worker_id, of=ranks * workers)
        epoch = int(self._epoch)
        groups = self._frames.row_groups()
        if self._even:
            if self.frame_count < share.of:
                raise UsageError(
                    f"even = True, but {share.of} workers of all ranks are more than {self.frame_count} frames"
                )
            groups = even_groups(groups, of=share.of, seed=self._seed, epoch=epoch)
        if self._shuffle:
            groups = share.of_groups(epoch_groups(groups, seed=self._seed, epoch=epoch))
            rng = np.random.default_rng([self._seed, epoch, share.part])
            images = mixed(self._table, self._frames, groups, rng=rng, buffer_bytes=self._buffer_bytes)
        else:
            images = (
                image for group in share.of_groups(groups) for image in read_images(self._table, self._frames, group)
            )
        return (self._samples.make(place, image) for place, image in images)

    def __getstate__(self) -> dict[str, Any]:
        # Workers that are spawned know nothing of torch.distributed.
        return self.__dict__ | {"_rank": self._rank or _distributed_rank()}


def collate(batch: Iterable[tuple[Any, Any]]) -> tuple[Any, ...]:
    """A batch as torchvision's detection models take it: all pictures, then all targets, of whatever sizes."""
    return tuple(zip(*batch, strict=True))


def _distributed_rank() -> tuple[int, int] | None:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return None
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def _names(option: str, names: str | Sequence[str], *, alone: bool = False) -> tuple[str, ...]:
    """The option as a tuple of names; `alone`, one name may be given as it is. Raises UsageError."""
    found = (names,) if alone and isinstance(names, str) else names
    if isinstance(found, str) or not all(isinstance(name, str) and name for name in found) or not found:
        raise UsageError(f"{option} = {names!r}: allowed is {'a name or ' if alone else ''}a sequence of names")
    if len({*found}) < len(found):
        raise UsageError(f"{option} = {list(found)}: each name may be there once")
    return tuple(found)
