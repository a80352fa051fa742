"""Matches of many frames become results: per class, then per model, group by group."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from .average_precision import average_all, average_class, describe_frames

# Functions with plain type hints: of anything else PySpark cannot tell what it is for.


def summarise_class(schema: pa.Schema) -> Callable[[pa.Table], pa.Table]:
    """What makes one row of `schema` (results) of the matches of a model, a kind and a class, or of no class."""

    def work(matches: pa.Table) -> pa.Table:
        is_class = matches.column("label")[0].as_py() is not None
        return pa.Table.from_pylist([average_class(matches) if is_class else describe_frames(matches)], schema=schema)

    return work


def summarise_model(schema: pa.Schema) -> Callable[[pa.Table], pa.Table]:
    """What makes rows of `schema` of the results of a model and a kind: all classes together, then each."""

    def work(results: pa.Table) -> pa.Table:
        return pa.Table.from_pylist(average_all(results.to_pylist()), schema=schema)

    return work
