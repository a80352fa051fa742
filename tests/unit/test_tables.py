"""The declarations are consistent: what one part names, another part has."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pyarrow as pa
import pytest

from visionlake import expectations
from visionlake.expectations import current_frames, runs
from visionlake.expectations._table import ERROR_TYPE, Table, arrow_type

NAMES = sorted({path.stem for folder in expectations.__path__ for path in Path(folder).glob("[a-z]*.py")})
MODULES = {name: import_module(f"visionlake.expectations.{name}") for name in NAMES}
TABLES = {name: module.TABLE for name, module in MODULES.items() if hasattr(module, "TABLE")}
VIEWS = {name: module.VIEW for name, module in MODULES.items() if hasattr(module, "VIEW")}

every_table = pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())


def test_every_module_declares_one_table_or_view_of_its_own_name():
    assert {"frames", "media", "sources", "quarantine", "waves"} <= TABLES.keys()
    assert {"runs", "current_frames"} <= VIEWS.keys()
    assert sorted([*TABLES, *VIEWS]) == NAMES
    assert all(declared.name == name for name, declared in [*TABLES.items(), *VIEWS.items()])


@every_table
def test_names_are_unique_and_exist(table: Table):
    names = table.column_names
    assert len({name.lower() for name in names}) == len(names), "Spark does not tell cases apart"
    assert set(table.key) <= set(names)
    assert set(table.cluster_by) <= set(names)
    assert set(table.properties.get("delta.dataSkippingStatsColumns", names[0]).split(",")) <= set(names)
    assert len({rule.name for rule in table.rules}) == len(table.rules)
    assert len({check.name for check in table.checks}) == len(table.checks)
    assert not set(table.compared_columns) & set(table.key)


@every_table
def test_key_columns_are_never_null_nor_volatile(table: Table):
    columns = {column.name: column for column in table.columns}
    # Where it is not known which row went wrong, or who has annotated; what is said of all classes is of none.
    may_be_null = {("quarantine", "output_key"), ("annotations", "annotator"), ("evaluations", "label")}
    assert table.key
    assert [n for n in table.key if columns[n].nullable and (table.name, n) not in may_be_null] == []
    assert [n for n in table.key if columns[n].volatile] == []
    assert {(table.name, n) for n in table.key if n not in table.known_key} <= may_be_null


@every_table
def test_everything_is_commented(table: Table):
    assert table.comment.endswith(".")
    assert [column.name for column in table.columns if len(column.comment) < 5] == []
    assert [check.name for check in table.checks if not check.expected] == []
    assert [rule.name for rule in table.rules if not rule.message] == []


@every_table
def test_checks_have_a_bound_and_plain_names(table: Table):
    for check in table.checks:
        assert (check.minimum, check.maximum, check.factor) != (None, None, None), check.name
    for name in [*(rule.name for rule in table.rules), *(check.name for check in table.checks), *table.column_names]:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name), name


@every_table
def test_types_have_an_arrow_type(table: Table):
    assert table.arrow_schema().names == list(table.column_names)


def test_an_error_may_be_appended():
    schema = TABLES["frames"].arrow_schema(with_error=True)
    assert schema.names == [*TABLES["frames"].column_names, "error"]
    assert schema.field("error").type == arrow_type(ERROR_TYPE)


def test_nested_types_are_read():
    assert arrow_type("array<struct<a:int, b:array<string>, c double>>") == pa.list_(
        pa.struct([("a", pa.int32()), ("b", pa.list_(pa.string())), ("c", pa.float64())])
    )
    assert arrow_type("map<string, struct<x:bigint>>") == pa.map_(pa.string(), pa.struct([("x", pa.int64())]))
    with pytest.raises(ValueError, match="decimal"):
        arrow_type("decimal(3,1)")


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
def test_views_read_what_is_declared(view):
    assert set(view.reads) <= {*TABLES, *VIEWS}
    columns = {name: TABLES[name].column_names for name in view.reads}
    text = view.statement({name: f"lake.{name}" for name in view.reads}, columns=columns)
    assert all(f"lake.{name}" in text for name in view.reads)
    assert "{" not in text


def test_current_frames_shows_the_columns_of_a_manifest():
    columns = {"frames": TABLES["frames"].column_names, "sources": (*TABLES["sources"].column_names, "site", "Pts")}
    text = current_frames.VIEW.statement({"frames": "f_", "sources": "s_"}, columns=columns)
    assert "s.origin.`site` AS `site`" in text
    assert "s.origin.`Pts` AS `source_Pts`" in text, "a name that frames already has"
    assert "etag" not in text


def test_runs_is_one_row_per_run_stage_and_producer():
    assert "GROUP BY run_id, stage, producer" in runs.VIEW.statement({"waves": "w"}, columns={"waves": ()})
