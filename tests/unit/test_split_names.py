"""Sets of splits that other sections name: what is told before Spark starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from visionlake.errors import ConfigError
from visionlake.jobs._config import load_pipeline

SECTIONS = """
lake = "lake"
[import_annotations.people]
format = "coco"
inputs = ["labels"]
[evaluate_labels.all]
truth = "people"
{evaluate}
[export_dataset.voc]
format = "voc"
to = "out"
{export}
"""


def load(folder: Path, *, evaluate: str = "", export: str = "", split: str = "") -> None:
    path = folder / "p.toml"
    path.write_text(SECTIONS.format(evaluate=evaluate, export=export) + split)
    load_pipeline(path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"evaluate": 'split_set = "mian"'}, r"evaluate_labels.all.split_set = \"mian\".*did you mean main"),
        ({"evaluate": 'split_set = "main"\nsplits = ["tst"]'}, r"evaluate_labels.all.splits = \"tst\".*mean test"),
        ({"export": 'split_set = "main"\nsplits = ["train", "dev"]'}, r"export_dataset.voc.splits = \"dev\""),
    ],
)
def test_names_that_no_section_makes_are_wrong(tmp_path: Path, settings: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, split="[split_dataset.main]", **settings)


def test_of_a_section_that_is_wrong_itself_nothing_more_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, evaluate='split_set = "main"\nsplits = ["test"]', split="[split_dataset.main]\nsharez = 3")
    assert "sharez" in str(error.value) and "has none such" not in str(error.value)


def test_other_files_may_make_them(tmp_path: Path) -> None:
    load(tmp_path, evaluate='split_set = "mian"')
    load(tmp_path, evaluate='split_set = "main"', split="[split_dataset.main]")
    by_manifest = '[split_dataset.main]\ncolumn = "subset"'
    load(tmp_path, evaluate='split_set = "main"\nsplits = ["holdout"]', split=by_manifest)
