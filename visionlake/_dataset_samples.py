"""Samples for training: a stored picture as a tensor, with its labels as torchvision's detection models take them."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from visionlake.errors import VisionlakeError
from visionlake.udfs._errors import MediaError
from visionlake.udfs.rle import decode_mask
from visionlake.udfs.stored_picture import open_stored

from ._dataset_index import Frames
from ._dataset_labels import Labels
from ._dataset_tables import LakeTable

Target = dict[str, Any]
Transform = Callable[[torch.Tensor, Target], tuple[Any, Any]]

_OPEN_FILES = 16


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What is needed to make the sample of any frame out of the bytes of its picture."""

    frames: Frames
    labels: Labels
    masks: bool
    max_pixels: int
    transform: Transform | None

    def make(self, place: int, image: Any) -> tuple[Any, Any]:
        """Picture and target of a frame. Raises VisionlakeError where the picture or a mask cannot be decoded."""
        try:
            picture = open_stored(image, max_pixels=self.max_pixels)
            target = self._target(place, *picture.size)
        except (MediaError, ValueError, OverflowError, MemoryError) as error:
            media_id, stream, pts = self.frames.key(place)
            text = error.message if isinstance(error, MediaError) else f"a mask: {error}"
            raise VisionlakeError(f"frame {media_id} stream {stream} pts {pts} cannot be used: {text}") from None
        pixels = torch.from_numpy(np.stack([np.asarray(band) for band in picture.split()]))
        return (pixels, target) if self.transform is None else self.transform(pixels, target)

    def _target(self, place: int, width: int, height: int) -> Target:
        labels = self.labels
        objects = np.arange(labels.start[place], labels.start[place + 1])
        scale = np.array([width, height]) / np.maximum(labels.size[place], 1)
        box = labels.box[objects].reshape(-1, 4) * np.tile(scale, 2)
        # What people draw may reach beyond the picture; models want boxes inside it, with an area.
        box = np.clip(box, 0, [width, height, width, height]).astype(np.float32)
        kept = (box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1])
        objects, box = objects[kept], box[kept]
        stated, own = labels.area[objects] * np.prod(scale), (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
        area = np.where(np.isnan(stated), own, stated).astype(np.float32)
        target: Target = {
            "boxes": torch.from_numpy(box),
            "labels": torch.from_numpy(labels.ids[objects].astype(np.int64)),
            "area": torch.from_numpy(area),
            "iscrowd": torch.from_numpy(labels.iscrowd[objects].astype(np.int64)),
            "image_id": place,
            "frame": self.frames.key(place),
        }
        if self.masks:
            target["masks"] = torch.from_numpy(self._masks(objects, width, height))
        return target

    def _masks(self, objects: npt.NDArray[np.int64], width: int, height: int) -> npt.NDArray[np.uint8]:
        found = np.zeros((len(objects), height, width), np.uint8)
        for mask, place in zip(found, objects, strict=True):
            rows, columns = map(int, self.labels.mask_size[place])
            if not (rows > 0 and columns > 0 and rows * columns <= self.max_pixels):
                raise ValueError(f"its size is {columns} x {rows}; allowed are {self.max_pixels} pixels")
            whole = decode_mask({"size": [rows, columns], "counts": self.labels.mask[int(place)].as_py()})
            mask[:] = whole if whole.shape == mask.shape else _resized(whole, height, width)
        return found


def _resized(mask: npt.NDArray[np.bool_], height: int, width: int) -> npt.NDArray[np.bool_]:
    """Each pixel is what lies under its centre."""
    rows = ((np.arange(height) + 0.5) * mask.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * mask.shape[1] / width).astype(int)
    return mask[rows][:, columns]


@dataclass
class Pictures:
    """Stored pictures by place, read a row group at a time; those used last stay, up to `cache_bytes`, at least one.

    A copy in another process, forked or pickled, begins with nothing open.
    """

    table: LakeTable
    cache_bytes: int
    _process: int | None = field(default=None, repr=False)
    _files: OrderedDict[int, pq.ParquetFile] = field(default_factory=OrderedDict, repr=False)
    _groups: OrderedDict[tuple[int, int], pa.ChunkedArray] = field(default_factory=OrderedDict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {"table": self.table, "cache_bytes": self.cache_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)

    def image(self, frames: Frames, place: int) -> Any:
        """The bytes of a frame's picture."""
        if self._process != os.getpid():
            self._files, self._groups, self._process = OrderedDict(), OrderedDict(), os.getpid()
        key = int(frames.file[place]), int(frames.row_group[place])
        images = self._groups.get(key)
        if images is None:
            images = self._groups[key] = self._read(*key)
            held = sum(group.nbytes for group in self._groups.values())
            while held > self.cache_bytes and len(self._groups) > 1:
                held -= self._groups.popitem(last=False)[1].nbytes
        self._groups.move_to_end(key)
        found = images[int(frames.row[place])]
        return memoryview(found.as_buffer()) if found.is_valid else None

    def _read(self, file: int, group: int) -> pa.ChunkedArray:
        if file not in self._files:
            self._files[file] = self.table.open(file)
            if len(self._files) > _OPEN_FILES:
                self._files.popitem(last=False)[1].close(force=True)
        self._files.move_to_end(file)
        return self._files[file].read_row_group(group, ["image"], use_threads=False)["image"].cast(pa.large_binary())
