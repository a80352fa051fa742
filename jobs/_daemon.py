"""Starts the Python workers of a local session, with pyspark taken from where it is installed.

Spark puts its own zipped copies of pyspark and py4j first on the workers' path, and every task begins with Python's
`invalidate_caches`, which reads the directories of those archives anew: a quarter of a second per task. Without them on
the path a task begins at once.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder


def leave_out_archives() -> None:
    """Take Spark's archives off the path, if pyspark and py4j are found without them."""
    archives = ("/pyspark.zip", "-src.zip", ".jar")  # pyspark's, py4j's, and the core of Spark itself
    kept = [path for path in sys.path if not path.endswith(archives)]
    if all(PathFinder.find_spec(name, kept) for name in ("pyspark", "py4j")):
        sys.path[:] = kept
        for path in [path for path in sys.path_importer_cache if path.endswith(archives)]:
            del sys.path_importer_cache[path]


if __name__ == "__main__":
    leave_out_archives()
    from pyspark.daemon import manager

    manager()
