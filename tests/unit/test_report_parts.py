"""What the report makes of answers of tables, without Spark."""

from __future__ import annotations

from typing import Any

import pytest
from jinja2 import DictLoader, Environment
from markupsafe import escape

from visionlake.jobs._report_confusion import confusion_matrix
from visionlake.jobs._report_facts import key_of
from visionlake.jobs._report_galleries import Gallery
from visionlake.jobs._report_labels import LabelFacts, class_rows
from visionlake.jobs._report_pictures import link_alike
from visionlake.jobs._report_plots import bars, lines, spread
from visionlake.jobs._report_sheets import choose_frames, keys_of
from visionlake.jobs.report import templates
from visionlake.udfs.agreement import alike


def pair(truth: str | None, found: str | None, count: int) -> dict[str, Any]:
    return {"truth": truth, "found": found, "count": count}


def texts(matrix: dict[str, Any]) -> list[list[str]]:
    return [[cell["text"] for cell in row["cells"]] for row in matrix["rows"]]


def test_a_confusion_has_the_background_last_and_all_that_was_counted() -> None:
    matrix = confusion_matrix(
        [pair("car", "car", 8), pair("car", "bus", 1), pair("bus", None, 2), pair(None, "car", 3)]
    )
    assert matrix is not None
    assert matrix["labels"] == ["car", "bus", "background"] and matrix["left_out"] == 0
    assert texts(matrix) == [["8", "1", "0"], ["0", "0", "2"], ["3", "0", ""]]
    assert [cell["is_right"] for cell in matrix["rows"][0]["cells"]] == [True, False, False]
    assert confusion_matrix([]) is None


def test_of_many_classes_the_most_confused_are_shown_and_the_rest_is_one() -> None:
    pairs = [pair(f"c{n:03}", f"c{n:03}", 1000) for n in range(200)]
    pairs += [pair("c150", "c151", 9), pair("c007", None, 5)]
    matrix = confusion_matrix(pairs)
    assert matrix is not None
    assert matrix["labels"][:3] == ["c150", "c151", "c007"] and matrix["labels"][-2:] == ["other classes", "background"]
    assert len(matrix["rows"]) == len(matrix["labels"]) == 14 and matrix["left_out"] == 188
    counts = [int(cell.replace(",", "") or 0) for row in texts(matrix) for cell in row]
    assert sum(counts) == 200 * 1000 + 14


@pytest.mark.parametrize("text", ["", None, "m", "m/0", "m/x/1", "m/0/", f"m/{2**31}/1", f"m/0/{2**63}", "m/-1/1"])
def test_a_key_that_names_no_frame(text: str | None) -> None:
    assert key_of(text) is None


def test_a_key_that_names_a_frame() -> None:
    assert key_of("m/0/-512/more") == {"media_id": "m", "stream_index": 0, "pts": -512}


def frame(pts: int) -> dict[str, Any]:
    return {"media_id": "m", "stream_index": 0, "pts": pts}


def answers(*, results: int = 2) -> dict[str, Any]:
    example = {"key": "m/0/1", "message": "", "place": None, "frame": frame(1)}
    return {
        "diff": {"problem": "", "pictures": [{}, {}]},
        "quarantine": [{"stage": "s", "reason": "r", "count": 3, "examples": [example, {**example, "frame": None}]}],
        "evaluations": [{"worst": [{**frame(n), "missed": 1} for n in range(10)]}, {"worst": None}][:results],
        "galleries": [Gallery(label=label, frames=9, keys=[frame(n) for n in range(4)]) for label in "ab"],
        "sheet": [frame(n) for n in range(48)],
    }


@pytest.mark.parametrize("most", [0, 1, 2, 3, 7, 12, 30, 200])
def test_no_more_frames_are_shown_than_may_be(most: int) -> None:
    found = choose_frames(answers(), most_worst=6, most=most)
    worst = [len(each["worst"]) for each in found["evaluations"]]
    shown = len(found["bad"]) + sum(worst) + sum(len(each.keys) for each in found["galleries"]) + len(found["sheet"])
    assert shown == min(max(0, most - 2), 1 + 6 + 8 + 48)
    assert max(worst) <= 6
    keys = keys_of(found)
    assert len(keys) == len({key["pts"] for key in keys}) <= shown


def test_each_evaluation_has_a_share_of_the_pictures() -> None:
    found = answers(results=1)
    found = {**found, "evaluations": found["evaluations"] * 3}
    chosen = choose_frames(found, most_worst=10, most=3 + 12)
    assert [len(each["worst"]) for each in chosen["evaluations"]] == [4, 4, 4]


def test_pictures_of_one_frame_link_to_each_other() -> None:
    one, other, alone = {"id": "x"}, {"id": "x"}, {"id": "y"}
    link_alike({"class-0": ("class <b>", [one]), "frame": ("frames", [other, alone])})
    assert one["also"] == [("frame-x", "frames")] and other["also"] == [("class-0-x", "class <b>")]
    assert alone["also"] == []


def facts(name: str, labels: dict[str, int], *, classes: int | None = None) -> LabelFacts:
    return LabelFacts(name=name, frames=1, instances=sum(labels.values()), classes=classes or len(labels),
                      labels=labels, scores=[], octaves={}, densities=[])  # fmt: skip


def test_the_card_has_the_classes_of_all() -> None:
    rows = class_rows([facts("people", {"car": 4, "bus": 1})], [facts("m@1:0", {"car": 2}, classes=40)])
    assert rows["names"] == ["people", "m@1:0"] and rows["left_out"]
    assert rows["rows"] == [("car", [("4", 100), ("2", 100)]), ("bus", [("1", 25), ("", 0)])]
    assert class_rows([], []) == {"names": [], "rows": [], "left_out": False}


def test_plots_say_in_words_what_they_show() -> None:
    assert bars("objects", [("car", 1200), ("bus", 0)], name="a")["alt"] == "objects: car 1,200"
    assert bars("objects", [], name="a")["alt"] == "objects: nothing"
    assert "0.5 on" in spread("scores", [0, 7], low=0, high=1, unit="score", name="b")["alt"]
    line = lines("curves", {"c\u202ear": [(0.5, 0.25)]}, x="recall", y="precision", name="c")
    assert "recall 0.50, precision 0.25" in line["alt"] and "\u202e" not in line["alt"] + line["svg"]


def test_boxes_that_are_alike_are_paired_by_class() -> None:
    def thing(label: str, x: float) -> dict[str, Any]:
        return {"label": label, "box": {"x_min": x, "y_min": 0.0, "x_max": x + 10, "y_max": 10.0}}

    a, b = [thing("car", 0), thing("car", 50), thing("bus", 0)], [thing("car", 1), thing("sign", 0)]
    assert alike(a, b, iou=0.5) == [(a[0], b[0])]
    assert alike([], b, iou=0.5) == [] == alike(a, [], iou=0.5)


@pytest.mark.parametrize("name", ["items", "get", "__class__", "<b>"])
def test_a_name_without_a_section_links_nowhere(name: str) -> None:
    page = Environment(loader=DictLoader(templates()), autoescape=True)
    use = page.from_string('{% from "report_macros.html.jinja" import linked %}{{ linked(name, links) }}')
    assert use.render(name=name, links={}) == escape(name)
    assert use.render(name=name, links={name: "class-0"}) == f'<a href="#class-0">{escape(name)}</a>'
