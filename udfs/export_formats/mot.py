"""MOT Challenge: a folder per sequence (a stream of a media), its frames as pictures, and their boxes with track ids.

Frames and pixels count from 1 (Milan et al., arXiv:1603.00831). Classes are numbered as `labels.txt` lists them, which
lies beside each `gt.txt`, too. Which frame of which media a picture is, `frames.csv` says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..export_types import ExportObject, ExportPlan, Sample, Shard, Target

TASKS = ("detection",)
UNIT = "sequence"


def write_shard(shard: Shard, samples: Iterator[Sample], plan: ExportPlan, target: Target) -> None:
    """One sequence. Tracks are numbered from 1, as they come. Raises ValueError for an object without one."""
    folder, first, number = "", None, 0
    lines: list[str] = []
    frames = ["frame,media_id,stream_index,pts,pts_s\n"]
    ids: dict[str, int] = {}
    for number, sample in enumerate(samples, 1):
        assert sample.image is not None
        first = first or sample
        folder = f"{shard.split}/{sample.media_id}_{sample.stream_index}"
        ending = sample.picture_name.rpartition(".")[2]
        target.write(f"{folder}/img1/{number:06d}.{ending}", sample.image)
        pts_s = "" if sample.pts_s is None else repr(sample.pts_s)
        frames.append(f"{number},{sample.media_id},{sample.stream_index},{sample.pts},{pts_s}\n")
        lines += [_line(number, each, ids, plan) for each in sample.objects]
    if first is None:
        return
    target.write(f"{folder}/gt/gt.txt", "".join(lines).encode())
    target.write(f"{folder}/gt/labels.txt", _names(plan))
    target.write(f"{folder}/seqinfo.ini", _info(folder, first, number))
    target.write(f"{folder}/frames.csv", "".join(frames).encode())


def write_split(split: str, samples: Iterator[Sample], plan: ExportPlan, target: Target) -> None:
    """The names of the split's sequences."""
    names = dict.fromkeys(f"{sample.media_id}_{sample.stream_index}" for sample in samples)
    target.write(f"{split}/seqmap.txt", "".join(f"{name}\n" for name in ["name", *names]).encode())


def set_files(plan: ExportPlan) -> Mapping[str, bytes]:
    """The classes."""
    return {"labels.txt": _names(plan)}


def _names(plan: ExportPlan) -> bytes:
    return "".join(f"{' '.join(each.name.split())}\n" for each in plan.categories).encode()


def _line(number: int, each: ExportObject, ids: dict[str, int], plan: ExportPlan) -> str:
    if each.track_id is None:
        raise ValueError(f"an object of class {each.label!r} has no track_id, and MOT is for tracks")
    x_min, y_min, x_max, y_max = each.box
    track = ids.setdefault(each.track_id, len(ids) + 1)
    class_ = plan.index_of(each.category_id) + 1
    numbers = (x_min + 1, y_min + 1, x_max - x_min, y_max - y_min)
    return f"{number},{track},{','.join(map(repr, numbers))},{0 if each.iscrowd else 1},{class_},{_visibility(each)}\n"


def _visibility(each: ExportObject) -> str:
    """The share of it that is seen, as its annotators wrote it; all of it where they did not write one."""
    try:
        share = float(each.attributes.get("visibility", "1"))
    except ValueError:
        share = 1.0
    return repr(share) if 0 <= share < 1 else "1"


def _info(folder: str, first: Sample, length: int) -> bytes:
    values = {
        "name": folder.rpartition("/")[2],
        "imDir": "img1",
        "seqLength": length,
        "imWidth": first.width_px,
        "imHeight": first.height_px,
        "imExt": "." + first.picture_name.rpartition(".")[2],
    }
    return "".join(["[Sequence]\n", *(f"{name}={value}\n" for name, value in values.items())]).encode()
