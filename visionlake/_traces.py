"""Errors that nobody foresaw: one line for the user, the full trace for whoever mends it."""

from __future__ import annotations

import os
import re
import tempfile
import time
import traceback
from pathlib import Path

_PYTHON_ERROR = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt)\b: .+")
_JVM_ERROR = re.compile(r": ((?:[a-z]\w*\.)+[A-Z]\w*(?:Error|Exception)\b.*)")


def summarise(error: BaseException) -> str:
    """One line that says what happened: of a Python worker's trace the last line, of a JVM's the first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    python = [line for line in lines if _PYTHON_ERROR.fullmatch(line)]
    jvm = [match[1] for line in lines if (match := _JVM_ERROR.fullmatch(line))]
    line = (python[-1:] or jvm[:1] or lines[:1] or ["no message"])[0][:500]
    name = type(error).__name__
    return line if line.startswith(name) else f"{name}: {line}"


def keep_trace(error: BaseException, *, shown: bool = False) -> str:
    """Keep the full trace in a file of the user's own and return its path, or with `shown` the trace itself."""
    trace = "".join(traceback.format_exception(error))
    if shown:
        return trace
    name = f"visionlake-{time.strftime('%Y%m%d-%H%M%S')}-"
    handle, path = tempfile.mkstemp(prefix=name, suffix=".log")  # mode 0600: a trace may hold paths and values
    with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(trace)
    return str(Path(path))
