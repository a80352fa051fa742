"""What the gate can say without Great Expectations: it costs seconds to import, so nothing here may need it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from visionlake.errors import ConfigError
from visionlake.expectations import frames
from visionlake.expectations._checks import CheckResult, Status, check_names, did_you_mean, validate_severity
from visionlake.expectations._gate import validate_expectations
from visionlake.expectations._table import Severity


def result(status: Status, severity: Severity = "stop") -> CheckResult:
    return CheckResult(name="c", severity=severity, status=status, expected="e", observed="o", keys=("{}",))


@pytest.mark.parametrize(
    ("status", "severity", "stops", "failed"),
    [
        ("passed", "stop", False, False),
        ("skipped", "stop", False, False),
        ("warned", "stop", False, True),
        ("warned", "warn", False, True),
        ("stopped", "stop", True, True),
        ("errored", "stop", True, True),
        ("errored", "warn", False, True),
    ],
)
def test_an_error_counts_as_its_severity_and_never_as_passed(status, severity, stops, failed):
    assert (result(status, severity).stops, result(status, severity).failed) == (stops, failed)


def test_results_are_json():
    plain = result("passed").as_dict()
    assert json.loads(json.dumps(plain)) == plain == {
        "name": "c", "severity": "stop", "status": "passed", "expected": "e", "observed": "o", "value": None,
        "keys": ["{}"], "message": "",
    }  # fmt: skip


def test_severity_of_an_unknown_check_names_the_nearest():
    names = check_names(frames.TABLE.checks)
    validate_severity({"black_share": "stop"}, names)
    with pytest.raises(ConfigError, match=r"'blak_share'; did you mean 'black_share'\?"):
        validate_severity({"blak_share": "stop"}, names)


def test_nearest_name_or_the_few_there_are():
    assert did_you_mean("fsp", ["fps", "start_s"]) == "; did you mean 'fps'?"
    assert did_you_mean("zzz", ["b", "a"]) == "; there are: a, b"
    assert did_you_mean("zzz", [f"name_{i}" for i in range(50)]) == ""


def test_unknown_type_is_found_without_importing_great_expectations():
    code = """
import sys
from visionlake.errors import ConfigError
from visionlake.expectations._gate import validate_expectations
validate_expectations([])
try:
    validate_expectations([{"type": "expect_column_value_to_be_between", "column": "brightness"}])
except ConfigError as error:
    print(error)
assert not {"great_expectations", "pandas", "pyspark"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "did you mean 'expect_column_values_to_be_between'?" in done.stdout


@pytest.mark.parametrize("item", [{}, {"type": 3}, {"column": "a"}])
def test_a_missing_type_says_what_is_wanted(item):
    if "great_expectations" in sys.modules:
        pytest.skip("is already imported, so types come from its registry")
    with pytest.raises(ConfigError, match="wants the name of an expectation"):
        validate_expectations([item])
