"""The gate: Great Expectations judges a wave. Nothing else imports it, and this does it late, for that takes seconds.

Checks of the declarations are judged on a profile, one row of numbers; users' own expectations on the wave's good rows.
"""

from ._own import load_expectations, validate_expectations
from ._profile import judge_profile, prepare
from ._rows import judge_rows

__all__ = ["judge_profile", "judge_rows", "load_expectations", "prepare", "validate_expectations"]
