"""Starts the Python workers of a local session, with pyspark from where it is installed and large modules shared.

Spark puts its own zipped copies of pyspark and py4j first on the workers' path, and every task begins with Python's
`invalidate_caches`, which reads the directories of those archives anew: a quarter of a second per task. Without them on
the path a task begins at once.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from importlib.machinery import PathFinder

IMPORTS = "VISIONLAKE_WORKER_IMPORTS"
"""The environment variable that names modules for workers to have from their start, with commas between them."""


def leave_out_archives() -> None:
    """Take Spark's archives off the path, if pyspark and py4j are found without them."""
    archives = ("/pyspark.zip", "-src.zip", ".jar")  # pyspark's, py4j's, and the core of Spark itself
    kept = [path for path in sys.path if not path.endswith(archives)]
    if all(PathFinder.find_spec(name, kept) for name in ("pyspark", "py4j")):
        sys.path[:] = kept
        for path in [path for path in sys.path_importer_cache if path.endswith(archives)]:
            del sys.path_importer_cache[path]


def import_early(modules: Sequence[str]) -> None:
    """Import what workers will want, once for all.

    They are forked from this process and share its memory, where each would have half a gigabyte of torch to itself.
    What cannot be imported is left to the worker that wants it, as is what there is to say about it: Spark expects the
    daemon's port on standard output, and reads nothing else before.
    """
    streams = os.dup(1), os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        for number in (1, 2):
            os.dup2(nowhere.fileno(), number)
    for module in modules:
        with suppress(Exception, SystemExit):
            import_module(module)
    for number, stream, kept in zip((1, 2), (sys.stdout, sys.stderr), streams, strict=True):
        stream.flush()
        os.dup2(kept, number)
        os.close(kept)


if __name__ == "__main__":
    leave_out_archives()
    import_early([name for name in os.environ.get(IMPORTS, "").split(",") if name])
    from pyspark.daemon import manager

    gc.freeze()  # collections in workers would write to what they share
    manager()
