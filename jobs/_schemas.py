"""Spark's types for declared tables, and how the type of a table that is there differs from its declaration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Column, DataFrame, SparkSession
    from pyspark.sql.types import DataType, StructType


def struct_type(ddl: str) -> StructType:
    """Columns given as DDL as Spark's type."""
    from pyspark.sql.types import StructType

    parsed = StructType.fromDDL(ddl)
    assert isinstance(parsed, StructType)
    return parsed


def to_spark(spark: SparkSession, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> DataFrame:
    """Rows of the driver as a table. As Arrow: lists Spark would send through Python workers."""
    import pyarrow as pa

    return spark.createDataFrame(pa.Table.from_pylist([*rows], schema=schema))


def fitted(value: Column, actual: DataType, wanted: DataType) -> Column:
    """A value as the wanted type, with null in the fields that structs inside of it have gained."""
    from pyspark.sql import functions as F
    from pyspark.sql.types import ArrayType, StructType

    if actual == wanted:
        return value
    if isinstance(actual, ArrayType) and isinstance(wanted, ArrayType):
        inner, outer = actual.elementType, wanted.elementType
        return F.transform(value, lambda each: fitted(each, inner, outer))
    if isinstance(actual, StructType) and isinstance(wanted, StructType):
        kinds = {field.name: field.dataType for field in actual.fields}
        parts = [
            (fitted(value[f.name], kinds[f.name], f.dataType) if f.name in kinds else F.lit(None).cast(f.dataType))
            .alias(f.name)
            for f in wanted.fields
        ]  # fmt: skip
        return F.when(value.isNotNull(), F.struct(*parts))
    return value.cast(wanted)


def added_fields(actual: DataType, wanted: DataType, *, path: str) -> Iterator[tuple[str, DataType]] | None:
    """Fields that `wanted` has at the end of structs inside of `actual`, by their path; None for another difference."""
    from pyspark.sql.types import ArrayType, StructType

    if actual == wanted:
        return iter(())
    if isinstance(actual, ArrayType) and isinstance(wanted, ArrayType):
        return added_fields(actual.elementType, wanted.elementType, path=f"{path}.element")
    if not isinstance(actual, StructType) or not isinstance(wanted, StructType):
        return None
    same, new = wanted.fields[: len(actual.fields)], wanted.fields[len(actual.fields) :]
    if actual.names != [field.name for field in same]:
        return None
    pairs = zip(actual.fields, same, strict=True)
    inner = [added_fields(a.dataType, w.dataType, path=f"{path}.{a.name}") for a, w in pairs]
    if None in inner:
        return None
    fields = [(f"{path}.{field.name}", field.dataType) for field in new]
    return iter([*(each for found in inner for each in found or ()), *fields])
