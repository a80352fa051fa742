"""Errors that nobody foresaw: the full trace for whoever mends them."""

from __future__ import annotations

import os
import tempfile
import time
import traceback
from pathlib import Path


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
