"""How far two models agree: per class, the worst frames, in the terminal and in the report."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from lake_by_hand import LakeByHand
from pyspark.sql import SparkSession

from visionlake import cli
from visionlake.errors import UsageError
from visionlake.jobs._diff_labels import diff_labels, find_model
from visionlake.jobs.report import Config, observe

OLD, NEW = "old@1:aa", "new@1:bb"
HOSTILE = "<script>x</script>\u202e"


def found(*things: tuple[str, int]) -> list[dict[str, Any]]:
    """Things of 20 by 20 pixels, by label and left edge."""
    return [
        {
            "label_id": 0, "label": label, "score": 0.9,
            "box": {"x_min": float(x), "y_min": 10.0, "x_max": x + 20.0, "y_max": 30.0},
        }
        for label, x in things
    ]  # fmt: skip


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> LakeByHand:
    """Three frames that both looked at, one that only the old model did, and one that neither."""
    made = LakeByHand(tmp_path_factory.mktemp("filled"), spark)
    made.fill(*(f"file:///media/{name}.mp4" for name in ("same", "moved", HOSTILE, "alone", "none")))
    looks = {
        0: (found(("car", 0), ("dog", 40)), found(("car", 0), ("dog", 40))),
        1: (found(("car", 0)), found(("car", 2))),  # 18 of 22 columns
        2: (found(("car", 0), ("car", 30), (HOSTILE, 0)), found(("dog", 0))),
        3: (found(("car", 0)), None),
    }
    made.put("detections", *(
        {
            "media_id": f"{place:064x}", "stream_index": 0, "pts": 512, "model_id": model,
            "frame_width_px": 64, "frame_height_px": 48, "instances": instances,
        }
        for place, both in looks.items()
        for model, instances in zip((OLD, NEW), both, strict=True)
        if instances is not None
    ))  # fmt: skip
    return made


@pytest.fixture
def lake(tmp_path: Path, filled: LakeByHand) -> LakeByHand:
    return filled.copy_to(tmp_path)


def test_classes_and_worst_frames(lake: LakeByHand) -> None:
    diff = diff_labels(lake.lake, OLD, NEW)
    assert (diff.frames, diff.frames_only_a, diff.frames_only_b) == (3, 1, 0)
    counts = {each.label: (each.frames, *vars(each.agreed).values(), each.agreed.missed) for each in diff.classes}
    assert counts == {"car": (3, 4, 2, 1, 1, 2), "dog": (2, 1, 2, 1, 0, 0), HOSTILE: (1, 1, 0, 0, 0, 1)}
    assert [each.label for each in diff.classes] == ["car", "dog", HOSTILE]
    assert (diff.total.missed, diff.total.extra, diff.total.agreement) == (3, 1, 6 / 10)
    assert [each.media_id for each in diff.worst] == [f"{place:064x}" for place in (2, 1)]
    assert diff.worst[1].place == "/media/moved.mp4"
    assert [(each.pts, each.pts_s, each.agreed.moved) for each in diff.worst] == [(512, 0.5, 0), (512, 0.5, 1)]
    swapped = diff_labels(lake.lake, NEW, OLD, moved=0.8, worst=1)
    assert (swapped.total.missed, swapped.total.extra, swapped.total.moved) == (1, 3, 0) and len(swapped.worst) == 1
    assert diff_labels(lake.lake, OLD, NEW, iou=0.85).total.moved == 0


def test_names_of_models(lake: LakeByHand) -> None:
    assert [find_model(lake.lake, name) for name in (OLD, "old", "new@")] == [OLD, OLD, NEW]
    with pytest.raises(UsageError, match=r"'o@' is no model here; there are: .*new@1:bb, old@1:aa"):
        find_model(lake.lake, "o@")
    lake.put("detections", {"media_id": "x", "stream_index": 0, "pts": 0, "model_id": "old@2:cc", "instances": []})
    with pytest.raises(UsageError, match=r"'old' means several models: old@1:aa, old@2:cc"):
        find_model(lake.lake, "old")
    assert diff_labels(lake.lake, OLD, "old@2:cc").frames == 0
    for pair, said in (((OLD, OLD), "twice"), ((OLD, "x@1:0"), r"no boxes of model x@1:0 .*old@1:aa")):
        with pytest.raises(UsageError, match=said):
            diff_labels(lake.lake, *pair)


def test_the_command_shows_tables_and_how_to_look(lake: LakeByHand, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--lake", lake.lake.uri]
    assert cli.main(["diff-labels", *place, "old", "new"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"car +3 +4 +2 +1 +1 +2 +0 +0\.667", shown), shown
    assert re.search(r"moved\.mp4 +512 +0\.5 +0 +0 +1 +0", shown)
    assert "\u202e" not in shown and "frames that only it looked at: 1)" in shown
    command = next(line for line in shown.splitlines() if "visionlake show" in line)
    assert f"--lake {lake.lake.uri} {2:064x} --pts 512 --model {OLD}" in command
    assert cli.main(["diff-labels", *place, "old", "new", "--json", "--worst", "1"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["total"]["agreement"] == 0.6 and len(told["worst"]) == 1 and told["model_a"] == OLD
    assert cli.main(["diff-labels", *place, "old", "new", "--iou", "0.95"]) == 2
    assert "--iou 0.95 is above --moved 0.9" in capsys.readouterr().err
    assert cli.main(["diff-labels", *place, "old"]) == 2 and "and 2 names" in capsys.readouterr().err


def test_the_report_has_the_classes_and_the_worst_frames(lake: LakeByHand) -> None:
    def page(**settings: Any) -> str:
        return Path(observe(lake.lake, Config(**settings)).uri).read_text(encoding="utf-8")

    shown = page(diff_labels=(OLD, NEW), max_pictures=0)
    section = shown.partition('<section id="agreement">')[2].partition("</section>")[0]
    assert section.count("<figure") == 2 and "frames that only it looked at: 1<" in section
    assert "3 missed" in section and "1 extra" in section and 'stroke-dasharray="6 3"' in section
    assert "<script" not in shown and "\u202e" not in shown
    assert "no boxes of model x@1:0" in page(diff_labels=(OLD, "x@1:0"), max_pictures=0)
