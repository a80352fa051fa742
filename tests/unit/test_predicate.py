"""What the text of a predicate may say, decided without Spark."""

from __future__ import annotations

from pathlib import Path

import pytest

from visionlake.errors import ConfigError
from visionlake.jobs._config import load_pipeline
from visionlake.jobs._predicate import check_predicate, named_models, tables_named, with_models


@pytest.mark.parametrize(
    "text",
    [
        "brightness < 60",
        "models['nano'].top_score BETWEEN 0.3 AND 0.6 AND NOT (brightness < 60 OR contrast IS NULL)",
        "pmod(xxhash64(media_id, pts), 10) = 0",
        "exists(models.nano.labels, x -> x IN ('car', 'it''s', r'a\\'))",
        "media.captured_at >= timestamp '2026-01-01 00:00:00' AND CAST(media.duration_s AS INT) % 2 = 0",
        "CASE WHEN `brightness` > 1e2 THEN true ELSE pts_s <=> 3.5D END",
        "aggregate(array(1, 2), 0, (a, b) -> a + b) = 3",
    ],
)
def test_what_asks_about_a_frame_is_allowed(text: str) -> None:
    check_predicate(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("brightnes < 60", "did you mean brightness?"),
        ("image IS NULL", "image is no column"),
        ("run_id = 'x'", "run_id is no column"),
        ("pts IN (SELECT pts FROM x)", "SELECT is no column"),
        ("exists(array(1), select -> true) AND pts IN (SELECT 1)", "called by one letter"),
        ("EXISTS (TABLE frames)", "TABLE is no column"),
        ("EXISTS (VALUES (1))", "VALUES(...) is not allowed"),
        ("pts = max(pts)", "max(...) is not allowed"),
        ("row_number() OVER (ORDER BY pts) = 1", "row_number(...) is not allowed"),
        ("explode(array(true))", "explode(...) is not allowed"),
        ("rand() < 0.5", "rand(...) is not allowed"),
        ("media.captured_at < current_timestamp", "current_timestamp is no column"),
        ("media.captured_at < `current_timestamp`", "`current_timestamp` is no column"),
        ("media.captured_at < TIMESTAMP 'Now'", "gives something else every day"),
        ("java_method('java.lang.System', 'exit', 1) = ''", "java_method(...) is not allowed"),
        ("`reflect`('java.lang.System', 'exit') = ''", "`reflect`(...) is not allowed"),
        ("system.builtin.reflect('x') = ''", "system is no column"),
        ("media.reflect('x') = ''", "reflect(...) is not allowed"),
        ("media.length('x') = 1", "length(...) is not allowed"),
        ("identifier('reflect')('x') = ''", "identifier(...) is not allowed"),
        ("/* ' */ reflect('x') /* ' */", '"/* \' */ re" is not allowed'),
        ("true -- '", '"-- \'" is not allowed'),
        ("true; DROP TABLE x", "'; DROP"),
        ("r'\\' = reflect('x') OR ''= ''", "reflect(...) is not allowed"),
        ("size(models) > 0", "models is used as models['name']"),
        ("models[media_id].top_score > 1", "models is used as models['name']"),
        ("brightness < 'open", '"\'open"'),
    ],
)
def test_what_reads_runs_or_changes_is_not(text: str, said: str) -> None:
    with pytest.raises(ValueError) as raised:
        check_predicate(text)
    assert said in str(raised.value)


def test_the_models_that_a_text_names_can_be_called_otherwise() -> None:
    text = "models['a'].top_score > 0.5 AND models . `b c`.instance_count = 0 OR media.models = 'models[''a'']'"
    assert named_models(text) == ("a", "b c") and tables_named(text) == ("media", "detections")
    renamed = with_models(text, {"a": "it's@1:00", "b c": "b c"})
    assert renamed == text.replace("['a']", "['it\\'s@1:00']", 1)
    assert named_models(renamed) == ("it's@1:00", "b c")
    assert tables_named("brightness > 3") == ()


def pipeline(folder: Path, text: str) -> Path:
    path = folder / "p.toml"
    path.write_text(f'lake = "lake"\n{text}')
    return path


def test_a_section_comes_after_those_whose_models_it_asks(tmp_path: Path) -> None:
    text = (
        "[segment_objects.big]\nselect = \"models['detect_objects.nano'].top_score < 0.5\"\n"
        "[detect_objects.mid]\nselect = \"models['old@1:00'] IS NULL\"\n[detect_objects.nano]\n"
    )
    loaded = load_pipeline(pipeline(tmp_path, text))
    assert loaded.stage_names == ("detect_objects.mid", "detect_objects.nano", "segment_objects.big")
    assert loaded.after["segment_objects.big"] == {"detect_objects.nano"}
    circle = (
        "[detect_objects.a]\nselect = \"models['b'] IS NULL\"\n[detect_objects.b]\nselect = \"models['a'] IS NULL\""
    )
    with pytest.raises(ConfigError, match=r"circle: detect_objects\.a, detect_objects\.b"):
        load_pipeline(pipeline(tmp_path, circle))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[detect_objects.a]\nselect = "rand() < 1"', 'a.select = "rand() < 1": rand(...) is not allowed'),
        ('[detect_objects.a]\nselect = ""', "detect_objects.a.select"),
        ("[detect_objects.ab]\nselect = \"models['abc'] IS NULL\"", "no section is called 'abc'; did you mean ab?"),
        (
            "[detect_objects.a]\n[segment_objects.a]\n[detect_objects.b]\nselect = \"models['a'] IS NULL\"",
            "'a' means several sections: write 'detect_objects.a' or 'segment_objects.a'",
        ),
    ],
)  # fmt: skip
def test_a_predicate_that_cannot_be_is_told_with_its_key(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_pipeline(pipeline(tmp_path, text))
    assert said in str(raised.value)
