"""The report: what it says, when it is written anew, and that nothing in it can act."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lake_by_hand import LakeByHand
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from visionlake.jobs._config import load_pipeline
from visionlake.jobs._pipeline import run
from visionlake.jobs.report import Config, observe
from visionlake.udfs.rle import encode_mask

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def hostile(port: int) -> list[str]:
    """Names as an enemy would choose them."""
    url = f"http://127.0.0.1:{port}/stolen"
    return [
        f"<script>document.title='owned';fetch('{url}')</script>",
        f'"><img src={url} onerror=alert(1)>',
        f"'-alert(1)-' {{{{ 7*7 }}}} {{% raw %}} <svg onload=fetch('{url}')>",
        "exe.\u202egnp.\u2066 $\\frac{1}{0}$ \x1b[31m \u0000 </style></title><b>",
    ]


class World(LakeByHand):
    """A lake with its report."""

    def fill_whole(self, *names: str) -> None:
        """What tells of the first frame of `fill`, and of the tables as a whole, under these names."""
        first, last = names[0], names[-1]
        key = {"media_id": f"{0:064x}", "stream_index": 0, "pts": 512}
        self.put("media", {"media_id": key["media_id"], "kind": "video"})
        licensed = self.lake.table("sources").withColumn("licence", F.lit("CC-BY-4.0" if first == last else last))
        licensed.write.format("delta").mode("overwrite").option("mergeSchema", "true").save(self.lake.path("sources"))
        pixels = np.zeros((96, 128), bool)
        pixels[10:60, 8:80] = True
        box = {"x_min": 8.0, "y_min": 10.0, "x_max": 80.0, "y_max": 60.0}
        thing = {"label_id": 0, "label": first, "box": box, "iscrowd": False, "mask": dict(encode_mask(pixels))}
        self.put(
            "annotations",
            {
                **key,
                "source": last,
                "annotator": first,
                "full_width_px": 128,
                "full_height_px": 96,
                "instances": [thing],
            },
        )
        self.put(
            "quarantine",
            {
                "stage": "detect_objects",
                "producer": first,
                "input_key": key["media_id"],
                "output_key": f"{key['media_id']}/0/512",
                "reason": last,
                "message": first,
            },
        )
        result = {
            "evaluation": last,
            "model_id": f"{first}@1:00",
            "kind": "bbox",
            "truth": last,
            "frames": 1,
            "truths": 2,
            "found": 2,
            "splits": [first],
            "ap": 0.625,
            "ap_before": 0.5,
            "calibration_error": 0.125,
            "score_threshold": 0.3,
            "pins": {"frames": 3},
        }
        curve = [{"recall": n / 100, "precision": 1.0 if n < 60 else None, "score": 0.5} for n in range(101)]
        points = [{"score": 0.4, "precision": 0.5, "count": 2}, {"score": 0.8, "precision": 0.9, "count": 2}]
        pairs = [{"truth": first, "found": None, "count": 3}, {"truth": first, "found": last, "count": 4}]
        self.put(
            "evaluations",
            {
                **result,
                "label": None,
                "calibration": points,
                "confusion": pairs,
                "errors": [{"error": "missed", "count": 3, "ap50_lost": 0.1}],
                "worst": [{**key, "missed": 1, "extra": 1, "swapped": 0}],
            },
            {**result, "label": first, "curve": curve},
        )
        self.put(
            "splits",
            {
                "split_set": last,
                "media_id": key["media_id"],
                "group_id": first,
                "split": first,
                "frames": 1,
                "near": [last],
            },
        )
        self.put(
            "exports",
            {
                "export": first,
                "uri": "file:///out/abc",
                "format": "coco",
                "frames": 1,
                "objects": 1,
                "task": last,
                "splits": [{"split": last, "frames": 1, "objects": 1}],
                "labelled_by": [{"labels": first, "frames": 1}],
                "pins": {"frames": 3},
            },
        )
        self.put("export_files", {"export": first, "path": last, "size_bytes": 2048, "sha256": "0" * 64})

    def report(self, **settings: Any) -> str:
        seen = observe(self.lake, Config(**settings))
        return Path(seen.uri).read_text(encoding="utf-8")


@pytest.fixture
def world(tmp_path: Path, spark: SparkSession) -> World:
    return World(tmp_path, spark)


def test_it_says_what_the_tables_hold(world: World) -> None:
    world.fill("file:///media/one.mp4", "file:///media/two%20%C3%BC.mp4")
    page = world.report(title="Night shift", max_per_class=0)
    assert "<h1>Night shift</h1>" in page
    assert page.count('<figure class="picture">') == 2 and page.count("data:image/jpeg;base64,") == 2
    assert "media/two ü.mp4" in page and "0.500 s, stream 0, pts 512" in page
    assert re.search(r'<rect x="4.0" y="5.0" width="36.0" height="25.0"', page)
    assert "2 objects in 2 frames" in page and ">warned<" in page
    assert "<script" not in page and "Agreement of two models" not in page


def test_an_empty_lake_has_a_page_too(world: World) -> None:
    page = world.report()
    assert "Nothing has run yet." in page and '<section id="frames">' not in page


def test_it_tells_of_people_evaluations_splits_and_data_sets(world: World) -> None:
    world.fill("file:///media/one.mp4")
    world.fill_whole("file:///media/one.mp4")
    page = world.report()
    order = ["card", "stages", "quarantine", "annotations", "labels", "evaluations", "splits", "exports", "classes"]
    assert re.findall(r'<section id="(\w+)">', page)[: len(order)] == order
    assert re.findall(r'href="#(\w+)">', page)[: len(order) + 1] == ["content", *order], "all of them are linked"
    assert '<td class="n">1,000</td>' not in page and "CC-BY-4.0 (1)" in page
    assert page.count('<path d="M') >= 3, "masks are outlined where people drew them"
    assert re.search(r'<rect x="4.0" y="5.0" width="36.0" height="25.0" stroke="[^"]+"/>', page), (
        "at half the full size"
    )
    assert "0.625" in page and "missed" in page and "background" in page
    assert "was 0.500" in page and "off by 0.125" in page and "ap_before" in page
    assert "1 file, 2.0 KiB" in page and "file:///media/one.mp4 (1)" in page, "files of an export; annotators"
    assert re.search(r'href="#class-0">file:///media/one.mp4</a>', page), "classes link to their galleries"
    for section in ("frame", "class-0", "evaluation-0", "quarantined"):
        assert page.count(f'<div class="pixels" id="{section}-') == 1
    assert "data:image" not in world.report(max_pictures=0)
    ids = re.findall(r' id="([^"]+)"', page)
    links = re.findall(r'href="#([^"]+)"', page)
    assert len(ids) == len({*ids}) and {*links} <= {*ids}


class Outline(HTMLParser):
    """What somebody who cannot see the page is told of it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.headings: list[int] = []
        self.problems: list[str] = []
        self.seen: Counter[str] = Counter()
        self.tables: list[set[str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        self.seen[tag] += 1
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        elif tag == "table":
            self.tables.append(set())
        elif tag == "caption":
            self.tables[-1].add(tag)
        if tag == "th" and told.get("scope") not in ("row", "col"):
            self.problems.append(f"a heading of a table without scope: {self.get_starttag_text()}")
        if tag == "img" and not (told.get("alt") and told.get("loading") == "lazy"):
            self.problems.append("a picture without words, or one that does not wait")
        if told.get("class") == "scroll" and not (told.get("tabindex") == "0" and told.get("aria-label")):
            self.problems.append(f"a region that keys do not reach: {self.get_starttag_text()}")
        if told.get("role") == "img" and not told.get("aria-label"):
            self.problems.append("a plot without words")


def test_it_can_be_read_aloud_and_walked_by_keys(world: World) -> None:
    names = ["file:///media/one.mp4", "file:///media/two.mp4"]
    world.fill(*names)
    world.fill_whole(*names)
    page = world.report()
    outline = Outline(page)
    assert outline.problems == [] and outline.seen["img"] > 4 and outline.seen["th"] > 30
    assert outline.headings[0] == 1 and outline.headings.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(outline.headings)), "no level is left out"
    assert outline.tables and all("caption" in table for table in outline.tables)
    ids, links = re.findall(r' id="([^"]+)"', page), re.findall(r'href="#([^"]+)"', page)
    assert len(ids) == len({*ids}) and {*links} <= {*ids}
    assert re.search(r'<body>\s*<a class="skip" href="#content">', page)
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'" in page
    assert outline.seen["script"] == outline.seen["link"] == outline.seen["iframe"] == 0


def test_a_frame_links_to_its_other_pictures_and_a_reason_to_its_gate(world: World) -> None:
    world.fill("file:///one.mp4", "file:///two.mp4")
    world.fill_whole("file:///one.mp4")
    key = f"{1:064x}"
    row = {"stage": "extract_frames", "producer": "extract_frames", "input_key": key, "reason": "damaged"}
    world.put("quarantine", row, {**row, "reason": "odd", "output_key": f"{key}/99999999999/{2**70}"})
    page = world.report()
    assert page.count('<div class="pixels" id="quarantined-') == 2, "of a media that is damaged the last frame is shown"
    assert re.search(r'<a href="#gate-0">extract_frames</a>', page) and '<summary id="gate-0">' in page
    assert re.search(r'<a href="#reason-\d">extract_frames: damaged</a>', page)
    worst = re.search(r'id="evaluation-0-(\w+)"', page)
    assert worst is not None
    for place in ("class-0", "frame", "quarantined"):
        assert f'href="#{place}-{worst[1]}"' in page
    assert len(re.findall('<figure class="picture">', world.report(max_in_all=3))) == 3
    assert "data:image" not in world.report(max_in_all=0)


@pytest.mark.long
def test_many_labels_make_no_long_page(world: World) -> None:
    world.fill("file:///one.mp4")
    box = {"x_min": 1.0, "y_min": 1.0, "x_max": 9.0, "y_max": 9.0}
    things = [
        {"label_id": n, "label": f"label {n % 20_000}", "score": n % 97 / 100, "box": box} for n in range(100_000)
    ]
    key = {"media_id": f"{0:064x}", "stream_index": 0, "pts": 512}
    world.put("detections", {**key, "model_id": "many@1:0", "frame_width_px": 64, "frame_height_px": 48,
                             "instances": things})  # fmt: skip
    world.put("annotations", {**key, "source": "people", "annotator": "a", "full_width_px": 64, "full_height_px": 48,
                              "instances": [{**each, "score": None} for each in things[:30_000]]})  # fmt: skip
    page = world.report()
    assert "the 30 most frequent of 20,000" in page and "100,001" in page
    assert len(page) < 3_000_000


@pytest.mark.long
def test_it_is_written_anew_only_where_something_changed(world: World) -> None:
    world.fill("file:///a.mp4")
    assert observe(world.lake, Config()).is_new
    assert not observe(world.lake, Config()).is_new
    first = world.report()
    assert observe(world.lake, Config(max_pictures=0)).is_new
    assert observe(world.lake, Config()).is_new and world.report() == first, "a function of tables and settings"
    world.put("quarantine", {"stage": "s", "producer": "s", "input_key": "k", "reason": "r"})
    assert observe(world.lake, Config()).is_new


@pytest.mark.long
def test_pictures_are_bounded_and_come_from_all_media(world: World) -> None:
    world.fill(*(f"file:///{name}.mp4" for name in "abcde"))
    page = world.report(max_pictures=3, max_per_class=0)
    assert page.count('<figure class="picture">') == 3 and "3 of 5 frames" in page
    assert "data:image" not in world.report(max_pictures=0)


@pytest.mark.long
def test_a_picture_that_cannot_be_shown_says_why(world: World) -> None:
    world.fill("file:///a.mp4")
    world.lake.update("frames", where="true", values={"image": "cast('no picture' AS binary)"})
    assert "cannot be decoded" in world.report()
    world.lake.update("frames", where="true", values={"image": "null"})
    assert "no picture is stored" in world.report()


def test_it_ends_a_run_in_which_a_stage_stopped(tmp_path: Path, spark: SparkSession) -> None:
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "bad.mp4").write_text("no video")
    file = tmp_path / "p.toml"
    file.write_text(
        'lake = "lake"\n[report]\n[mlflow]\nenabled = false\n[extract_frames]\n'
        '[ingest_media]\ninputs = ["media"]\nmin_rows = 1\nmax_error_share = 0.0\nmin_age_s = 0\n'
    )
    result = run(load_pipeline(file), spark=spark)
    assert [stage.status for stage in result.stages] == ["stopped", "skipped", "done"] and result.exit_code == 3
    assert ">stopped<" in Path(result.stages[-1].wrote or "").read_text()
    assert [s.stage for s in run(load_pipeline(file), spark=spark, only=["report"]).stages] == ["report"]


class Counting(ThreadingHTTPServer):
    """A server that hears every request."""

    def __init__(self) -> None:
        heard = self.heard = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                heard.append(self.path)
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture
def server() -> Iterator[Counting]:
    made = Counting()
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width_px", [390, 1280])
def test_hostile_names_do_nothing_in_a_browser(world: World, server: Counting, tmp_path: Path, width_px: int) -> None:
    port = server.server_address[1]
    names = hostile(port)
    world.fill(*names)
    world.fill_whole(*names)
    page = world.report(title=names[0])
    assert "\u202e" not in page and "\\u202e" in page and "\x1b" not in page
    done = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom",
            f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width_px},900", "--virtual-time-budget=5000",
            world.lake.path("report.html"),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    dom = done.stdout
    assert re.findall(r"<(?:script|b|img src=http)\b", dom) == [] and "<title>owned" not in dom
    assert html.escape(names[0], quote=False) in dom
    assert "{{ 7*7 }}" in dom
    assert "CONSOLE" not in done.stderr, done.stderr
    assert server.heard == []


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_browser_of_these_tests_would_notice(server: Counting, tmp_path: Path) -> None:
    """The oracle of the test above: a page that acts is seen to act."""
    port = server.server_address[1]
    bad = tmp_path / "bad.html"
    bad.write_text(f"<img src=http://127.0.0.1:{port}/stolen><script>console.error('seen')</script>")
    done = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom",
            f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", str(bad),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "CONSOLE" in done.stderr and server.heard == ["/stolen"]
