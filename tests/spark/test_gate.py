"""The gate with Great Expectations: verdicts on a wave's profile and on its rows."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest

from visionlake.errors import ConfigError
from visionlake.expectations._checks import with_offending_keys
from visionlake.expectations._gate import (
    _gx,
    judge_profile,
    judge_rows,
    load_expectations,
    prepare,
    validate_expectations,
)
from visionlake.expectations._table import Check

BLACK = Check(
    name="black_share",
    metric="avg(CASE WHEN brightness < 4 THEN 1.0 ELSE 0.0 END)",
    expected="at most 20 % of frames are black",
    maximum=0.2,
    share=True,
    offending="brightness < 4",
)
STEPS = Check(name="steps", metric="backward_steps", expected="pts grows", maximum=0)
KEY = ("media_id", "pts")


def judge(check, value, *, rows=100, severity=None):
    [result] = judge_profile({check.metric: value}, [check], rows=rows, min_rows=20, severity=severity)
    return result


def test_a_number_within_the_bounds_passes():
    result = judge(BLACK, 0.2)
    assert (result.status, result.expected, result.observed) == ("passed", "at most 20 % of frames are black", "20 %")
    assert judge(STEPS, 0).observed == "0"


def test_a_number_out_of_bounds_stops_or_warns():
    assert judge(BLACK, 0.372).status == "stopped"
    assert (judge(BLACK, 0.372).observed, judge(BLACK, 0.372).value) == ("37.2 %", 0.372)
    assert judge(BLACK, 0.372, severity={"black_share": "warn"}).status == "warned"
    assert judge(BLACK, math.inf).status == "stopped"


def test_a_share_of_few_rows_only_warns():
    result = judge(BLACK, 0.5, rows=19)
    assert (result.status, result.severity) == ("warned", "stop")
    assert result.message == "19 rows, too few to stop (min_rows = 20)"
    assert judge(BLACK, 0.5, rows=20).status == "stopped"
    assert judge(STEPS, 1, rows=1).status == "stopped", "no share: one is enough"


@pytest.mark.parametrize("unknown", [None, float("nan"), Decimal("NaN")])
def test_a_null_fails_unless_there_are_no_rows(unknown):
    assert judge(BLACK, unknown).status == "stopped"
    assert judge(BLACK, unknown, rows=0).status == "skipped"
    assert judge(STEPS, 1, rows=0).status == "stopped", "a number is judged, rows or none"


def test_what_cannot_be_judged_is_an_error_and_spares_the_others():
    unbounded = Check(name="unbounded", metric="m", expected="?")
    text = Check(name="text", metric="t", expected="?", maximum=1, severity="warn")
    missing = Check(name="missing", metric="nowhere", expected="?", maximum=1)
    profile = {"black_share": Decimal("0.1"), "steps": True, "m": 1, "t": "abc"}
    results = judge_profile(profile, [unbounded, BLACK, text, STEPS, missing], rows=100, min_rows=20)
    assert [r.name for r in results] == ["unbounded", "black_share", "text", "steps", "missing"]
    assert [r.status for r in results] == ["errored", "passed", "errored", "stopped", "errored"]
    assert [r.stops for r in results] == [True, False, False, True, True]
    assert all(r.message for r in results if r.status == "errored")


def test_an_unknown_severity_is_refused():
    with pytest.raises(ConfigError, match="did you mean 'steps'"):
        judge(STEPS, 1, severity={"step": "warn"})


def test_the_context_of_a_notebook_stays_current():
    import great_expectations as gx
    from great_expectations.data_context.data_context.context_factory import project_manager

    theirs = gx.get_context(mode="ephemeral")
    _gx._new_context.cache_clear()
    try:
        judge(STEPS, 0)
        assert project_manager.get_current_project() is theirs
    finally:
        project_manager.set_project(None)


@pytest.fixture(scope="module")
def rows(spark, tmp_path_factory):
    data = [("m" if i < 200 else "n", i, float(i % 256), b"pixels") for i in range(300)]
    path = str(tmp_path_factory.mktemp("rows") / "rows.parquet")
    spark.createDataFrame(data, "media_id string, pts bigint, brightness double, image binary").write.parquet(path)
    return spark.read.parquet(path)


def between(**arguments):
    return {"type": "expect_column_values_to_be_between", "column": "brightness"} | arguments


def test_rows_are_judged_and_offenders_named(rows):
    results = judge_rows(rows, [between(max_value=200), between(min_value=0)], key=KEY)
    assert [r.status for r in results] == ["stopped", "passed"]
    assert results[0].name == "column_values_to_be_between(brightness)"
    assert results[1].name == "column_values_to_be_between(brightness) #2"
    assert results[0].expected == "column values to be between: column brightness, max_value 200"
    assert results[0].observed.startswith("55 of 300 rows fail (18.33 %), e.g. 2")
    assert results[0].value == pytest.approx(55 / 300)
    assert len(results[0].keys) == 5
    assert set(results[0].keys) <= {f"{'m' if i < 200 else 'n'}/{i}" for i in range(201, 256)}
    assert results[1].keys == ()


def test_severity_name_and_description_are_the_users(rows):
    item = between(max_value=200, severity="warn", name="bright", description="no frame is burnt out")
    [result] = judge_rows(rows, [item], key=KEY)
    assert (result.name, result.severity, result.status) == ("bright", "warn", "warned")
    assert result.expected == "no frame is burnt out"


def test_a_missing_column_or_a_broken_query_is_an_error_and_spares_the_others(rows, capfd):
    items = [
        between(column="brightnes", max_value=1),
        {
            "type": "unexpected_rows_expectation",
            "unexpected_rows_query": "SELECT nope FROM {batch}",
            "severity": "warn",
        },
        {"type": "expect_table_row_count_to_be_between", "min_value": 1},
    ]
    results = judge_rows(rows, items, key=KEY)
    assert [r.status for r in results] == ["errored", "errored", "passed"]
    assert [r.stops for r in results] == [True, False, False]
    assert 'column "brightnes"' in results[0].message
    assert "`nope` cannot be resolved" in results[1].message
    assert capfd.readouterr() == ("", "")


def test_a_query_sees_its_own_session_and_leaves_nothing_behind(rows, spark):
    session, before = spark.newSession(), held(spark)  # by other tests of the session, until Java's memory is cleaned
    query = "SELECT * FROM {batch} WHERE brightness > 250"
    item = {"type": "unexpected_rows_expectation", "unexpected_rows_query": query}
    here = session.read.parquet(*rows.inputFiles())
    assert [(r.status, r.observed) for r in judge_rows(here, [item], key=KEY)] == [("stopped", "5")]
    for used in (spark, session):
        assert [table.name for table in used.catalog.listTables() if table.isTemporary] == []
    assert not here.is_cached
    assert held(spark) <= before


def held(spark):
    """Ids of the data that the session keeps, but for what Delta keeps."""
    kept = spark.sparkContext._jsc.getPersistentRDDs()
    return {number for number, rdd in kept.items() if not str(rdd.name()).startswith("Delta Table State")}


def test_keys_of_rows_that_a_check_picks(rows):
    results = judge_profile({"black_share": 0.5, "steps": 0}, [BLACK, STEPS], rows=300, min_rows=20)
    shown = with_offending_keys(results, [BLACK, STEPS], rows, key=KEY)
    assert [r.status for r in shown] == ["stopped", "passed"]
    assert len(shown[0].keys) == 5
    assert set(shown[0].keys) <= {"m/0", "m/1", "m/2", "m/3", "n/256", "n/257", "n/258", "n/259"}
    assert shown[1].keys == ()


def test_no_rows_are_never_a_pass(rows):
    items = [
        between(min_value=0),
        {"type": "expect_column_mean_to_be_between", "column": "brightness", "max_value": 9},
        {"type": "expect_table_row_count_to_be_between", "min_value": 1},
        between(column="brightnes", min_value=0),
    ]
    results = judge_rows(rows.where("false"), items, key=KEY)
    assert [r.status for r in results] == ["skipped", "skipped", "stopped", "errored"]
    assert results[0].message == "no rows to judge"


def test_without_expectations_nothing_is_done(rows):
    assert judge_rows(rows, [], key=KEY) == []


def test_expectations_of_a_python_file(rows, tmp_path):
    path = tmp_path / "own.py"
    path.write_text(
        "import great_expectations.expectations as gxe\n"
        "class ExpectBrightness(gxe.ExpectColumnValuesToBeBetween):\n"
        "    column: str = 'brightness'\n"
        "    max_value: float = 200\n"
        "    description: str = 'brightness up to 200'\n"
        "EXPECTATIONS = [\n"
        "    gxe.ExpectColumnMaxToBeBetween(column='pts', max_value=9, meta={'severity': 'warn', 'name': 'top'}),\n"
        "    gxe.ExpectColumnMaxToBeBetween(column='pts', max_value=9, severity='warning'),\n"
        "    ExpectBrightness(),\n"
        "]\n"
    )
    loaded = load_expectations(path)
    validate_expectations(loaded)
    for _ in range(2):  # the same objects judge every wave
        results = judge_rows(rows, loaded, key=KEY)
        assert [r.status for r in results] == ["warned", "warned", "stopped"]
        assert [r.observed for r in results[:2]] == ["299", "299"]
        assert results[0].name == "top"
        assert results[2].expected == "brightness up to 200"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ny = x.nope\n", r"own\.py, line 2: AttributeError: .*nope"),
        ("EXPECTATIONS = 3\n", r"wants EXPECTATIONS = \[\.\.\.\]"),
        ("def f(:\n", "SyntaxError"),
    ],
)
def test_a_broken_file_says_where(tmp_path, text, message):
    path = tmp_path / "own.py"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_expectations(path)


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(ConfigError, match=r"own\.py"):
        load_expectations(tmp_path / "own.py")


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"type": "expect_column_value_to_be_between"}, "did you mean 'expect_column_values_to_be_between'"),
        (between(min_valu=1), "expectation 1: .*unknown argument 'min_valu'; did you mean 'min_value'"),
        (between(), "min_value and max_value cannot both be None"),
        (between(min_value=1, severity="bad"), "severity = 'bad'; allowed: 'stop', 'warn'"),
        (between(min_value=1, mostly=2.0), "mostly"),
        (between(min_value=1, name=3), "name = 3"),
        (3, "3 is neither"),
    ],
)
def test_wrong_expectations_are_refused_before_work_starts(item, message):
    prepare()
    with pytest.raises(ConfigError, match=message):
        validate_expectations([item])
