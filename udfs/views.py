"""A detector that looks at several views of each picture: tiles, and mirrored and scaled pictures.

A tile's border cuts off what reaches over it, and the detector draws a box around the rest. Such a box touches a border
of its tile that is not one of the picture. It is left out where a box seen whole, in another tile or in the picture,
holds most of it, however sure the detector is of the part. Otherwise it is merged with other parts by how much of the
smaller one they share: two parts of an object that is longer than the overlap may stay two. So let tiles overlap by as
much as the longest thing that matters, or look at the whole picture too, which is the default.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import numpy.typing as npt
from PIL import Image

from ._boxes import TINY, areas, concatenate, overlaps, take
from ._errors import MediaError
from ._halving import in_halves
from ._tiles import View, views_of
from .detector_types import Backend, Batched, DetectOptions, Detector, Instances
from .fusion import gather, greedy_merging, nms, weighted_boxes_fusion
from .view_options import ViewOptions

MAX_PIXELS = 89_478_485


def load_detector(backend: Backend, options: DetectOptions) -> Detector:
    """The backend's detector, for the views that `options` ask for. Raises ModelError.

    The score of a box after weighted fusion is a mean over all scaled and mirrored pictures, with 0 where nothing was
    found. So that one just below the threshold in a picture counts as what it is, the detector gets the threshold over
    their number, and the wanted threshold is for the mean. It may also find as many times more: the best of one picture
    need not be the best of another.
    """
    views = options.views
    if views == ViewOptions():
        return backend.load(options)
    settings = backend.describe(options).resolved(options)
    threshold, most, looks = settings.get("score_threshold"), settings.get("max_instances"), len(views.looks)
    inner = replace(
        options,
        views=ViewOptions(),
        score_threshold=threshold / looks if threshold is not None and views.view_merge == "wbf" else threshold,
        max_instances=most * looks if most is not None else None,
    )
    return ManyViews(backend.load(inner), views, score_threshold=threshold, max_instances=most)


@dataclass(frozen=True, kw_only=True)
class PreparedViews:
    """A picture whose views are made when their turn comes: together they may be many times its size."""

    picture: Image.Image

    @property
    def width_px(self) -> int:
        """Of the picture."""
        return self.picture.width

    @property
    def height_px(self) -> int:
        """Of the picture."""
        return self.picture.height

    @property
    def bucket(self) -> tuple[int, ...]:
        """Pictures of one size have views of the same sizes."""
        return self.picture.size

    @property
    def size_bytes(self) -> int:
        """Memory that the picture takes; its views are made when their turn comes."""
        return 3 * self.picture.width * self.picture.height


class ManyViews:
    """A detector made of another one, which sees views of a picture, a batch of equal prepared size at a time.

    What is found has a score above `score_threshold`, and is the best `max_instances`.
    """

    def __init__(
        self, inner: Detector, options: ViewOptions, *, score_threshold: float | None, max_instances: int | None
    ) -> None:
        self.labels, self.first_label_id = inner.labels, inner.first_label_id
        self.batch_size = 1 if options.tile_px else max(1, inner.batch_size // len(options.looks))
        self.device_type = getattr(inner, "device_type", "cpu")
        self._inner, self._options = inner, options
        self._score_threshold, self._max_instances = score_threshold, max_instances

    def prepare(self, picture: Image.Image) -> PreparedViews:
        """The picture (RGB), to be looked at in views. Raises MediaError where the largest has too many pixels."""
        largest = max(self._options.scales)
        pixels = round(picture.width * picture.height * largest**2)
        if largest > 1 and pixels > MAX_PIXELS:
            text = f"scaled by {largest} the picture has {pixels} pixels; allowed are {MAX_PIXELS}: set smaller scales"
            raise MediaError("image_too_large", text)
        return PreparedViews(picture=picture)

    def detect(self, batch: Sequence[PreparedViews]) -> list[Instances]:
        """What is in each picture, from all of its views."""
        found: list[list[tuple[View, Instances]]] = [[] for _ in batch]
        for place, view, instances in self._seen(batch):
            found[place].append((view, instances))
        return [self._together(views, one.picture.size) for views, one in zip(found, batch, strict=True)]

    def _seen(self, batch: Sequence[PreparedViews]) -> Iterator[tuple[int, View, Instances]]:
        """Every view of every picture, with the picture's place in the batch, in an order that sizes decide."""
        waiting: dict[tuple[int, ...], list[tuple[int, View, Batched]]] = {}
        for place, one in enumerate(batch):
            for view, picture in views_of(one.picture, self._options):
                prepared = self._inner.prepare(picture)
                alike = waiting.setdefault(prepared.bucket, [])
                alike.append((place, view, prepared))
                if len(alike) >= self._inner.batch_size:
                    yield from self._detected(waiting.pop(prepared.bucket))
        for alike in waiting.values():
            yield from self._detected(alike)

    def _detected(self, alike: Sequence[tuple[int, View, Batched]]) -> Iterator[tuple[int, View, Instances]]:
        # Here, too: tiles of one picture are a batch of their own, of which the caller knows nothing.
        found, most = in_halves(self._inner.detect, [prepared for *_, prepared in alike])
        if most < len(alike):
            self._inner.batch_size = most
        for (place, view, _), instances in zip(alike, found, strict=True):
            yield place, view, instances

    def _together(self, seen: list[tuple[View, Instances]], size_px: tuple[int, int]) -> Instances:
        seen.sort(key=lambda each: (each[0].look, each[0].tile))
        by_look = groupby(seen, key=lambda each: each[0].look)
        looks = [_merged_tiles([*tiles], self._options, size_px=size_px) for _, tiles in by_look]
        found = looks[0] if len(looks) == 1 else self._merged_looks(looks)
        if self._score_threshold is not None:
            found = take(found, found.scores > self._score_threshold)
        return take(found, np.arange(len(found.scores))[: self._max_instances])

    def _merged_looks(self, looks: Sequence[Instances]) -> Instances:
        pool, iou = gather(looks), self._options.view_merge_iou
        is_wbf = self._options.view_merge == "wbf"
        return (weighted_boxes_fusion(pool, iou=iou) if is_wbf else nms(pool, overlap=iou)).instances


def _merged_tiles(
    seen: Sequence[tuple[View, Instances]], options: ViewOptions, *, size_px: tuple[int, int]
) -> Instances:
    """What tiles of one look found, in pixels of the picture, best first."""
    placed = [replace(found, boxes=view.to_picture(found.boxes, size_px=size_px)) for view, found in seen]
    if len(placed) == 1:
        return placed[0]
    is_cut = [view.is_cut(found.boxes) for view, found in seen]
    overlap = options.tile_merge_overlap
    complete = gather([take(found, ~cut) for found, cut in zip(placed, is_cut, strict=True)])
    whole = nms(complete, overlap=overlap, matches="other sources").instances  # a view tells its own boxes apart
    parts = [take(found, cut) for found, cut in zip(placed, is_cut, strict=True)]
    parts = gather([take(part, ~_lie_in(part, whole, overlap=overlap)) for part in parts])
    merge = greedy_merging if options.tile_merge == "nmm" else nms
    together = concatenate([whole, merge(parts, overlap=overlap, metric="ios", matches="other sources").instances])
    return take(together, np.argsort(-together.scores, kind="stable"))


def _lie_in(parts: Instances, whole: Instances, *, overlap: float) -> npt.NDArray[np.bool_]:
    """Which parts have more than `overlap` of their area in something whole with the same label."""
    sizes, lie = areas(whole.boxes), np.zeros(len(parts.scores), np.bool_)
    for place, (box, size) in enumerate(zip(parts.boxes, areas(parts.boxes), strict=True)):  # all at once is gigabytes
        of_smaller = overlaps(box, whole.boxes, metric="ios")
        share = of_smaller * np.minimum(size, sizes) / max(size, TINY)
        lie[place] = (share[whole.label_ids == parts.label_ids[place]] > overlap).any()
    return lie
