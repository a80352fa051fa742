"""The lake: where its Delta tables are, how they are made, read, compared with their declaration and changed.

The only module that knows Delta. A lake is a directory, a URI or `catalog.schema`.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionlake.errors import StageError, UsageError, summarise
from visionlake.expectations import declaration, declared_names
from visionlake.expectations._table import Column, Table, View

from ._as_of import Moment, parse_as_of
from ._config import resolve_lake
from ._lake_files import LakeFiles
from ._schemas import added_fields, fitted, struct_type
from ._sql import quoted

if TYPE_CHECKING:
    from datetime import datetime

    from delta.tables import DeltaTable
    from pyspark.sql import DataFrame, SparkSession

PROPERTIES = {
    "delta.enableChangeDataFeed": "true",
    # Readers outside Spark (deltalake, DuckDB) open tables without deletion vectors everywhere.
    "delta.enableDeletionVectors": "false",
}
_CATALOG_SCHEMA = re.compile(r"[^\W\d]\w*\.[^\W\d]\w*")


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A table at a moment: its `head`, null where there was none, and how often a `Lake` had written to it."""

    head: tuple[int, str] | None
    commits: int


class Lake(LakeFiles):
    """The tables of one lake, read by name: `Lake("lake").table("frames", version=3)`.

    With `as_of` the lake is read as it was: at a time (ISO 8601, UTC without a zone), as a run left it (its id), or at
    versions of tables ("frames=12,detections=7"; the others as they are). It cannot be written then. Raises UsageError
    where there is no such run or version.
    """

    def __init__(
        self,
        uri: str | Path,
        *,
        spark: SparkSession | None = None,
        folder: Path | None = None,
        as_of: str | datetime | None = None,
    ) -> None:
        self.as_of = None if as_of is None else parse_as_of(as_of)
        self.uri = resolve_lake(str(uri), folder=folder or Path.cwd())
        self.in_catalog = _is_catalog_schema(self.uri)
        if spark is None:
            from ._session import get_session

            spark = get_session()
        self.spark = spark
        self._ensured: set[str] = set()
        self._ensuring = threading.Lock()
        self._made: dict[str, str] = {}
        self._commits: Counter[str] = Counter()
        self._moment = None if self.as_of is None else Moment(Lake(self.uri, spark=spark), self.as_of)

    def __repr__(self) -> str:
        return f"Lake({self.uri!r})" if self.as_of is None else f"Lake({self.uri!r}, as_of={self.as_of.text!r})"

    @property
    def now(self) -> Lake:
        """The lake as it is, where this one is as it was."""
        return self if self.as_of is None else Lake(self.uri, spark=self.spark)

    def check_place(self) -> None:
        """Raises UsageError where there can be no lake: a file, a folder that cannot be made, a store out of reach."""
        if self.in_catalog:
            return
        try:
            if self.local_folder is not None:
                self.local_folder.mkdir(parents=True, exist_ok=True)
            else:
                self.exists("waves")
        except OSError as error:
            raise UsageError(f"lake {self.uri} cannot be a folder: {error.strerror}; give another place") from None
        except Exception as error:
            raise UsageError(
                f"lake {self.uri} cannot be reached: {summarise(error)}. Is the address right, and does the session "
                "have the jars for it ([spark] jars.packages)?"
            ) from error

    def names(self) -> list[str]:
        """Names of the tables and views that are here: the declared ones and those of users' own stages."""
        declared = [name for name in declared_names() if self.exists(name)]
        if "waves" not in declared:
            return declared
        rows = self.table("waves").selectExpr("explode(outputs.table) AS name").distinct().collect()
        others = sorted({row["name"] for row in rows} - {*declared})
        return [*declared, *(name for name in others if self.exists(name))]

    def exists(self, name: str) -> bool:
        """Whether the table exists, or every table that the view reads."""
        declared = declaration(name) if name in declared_names() else None
        if isinstance(declared, View):
            return all(self.exists(table) for table in declared.reads)
        from delta.tables import DeltaTable

        if self._moment is not None:
            return self._moment.version(name) is not None
        if self.in_catalog:
            return self.spark.catalog.tableExists(f"{self.uri}.{name}")
        return DeltaTable.isDeltaTable(self.spark, self.path(name))

    def table(self, name: str, *, version: int | None = None) -> DataFrame:
        """The rows of a table or view, as of a Delta version if one is given.

        Raises UsageError where there is no such table or version.
        """
        declared = declaration(name) if name in declared_names() else None
        if isinstance(declared, View):
            if version is not None:
                raise UsageError(f"view {name!r} has no versions of its own; read one of {sorted(declared.reads)}")
            return self._view(declared)
        if not self.exists(name):
            when = f" as of {self.as_of.text}" if self.as_of else ""
            raise UsageError(f"no table {name!r} in lake {self.uri}{when}; it has {self.names() or 'no tables yet'}")
        if version is None and self._moment is not None:
            version = self._moment.version(name)
        if version is None:
            return self._read({}, name)
        from pyspark.errors import AnalysisException

        try:
            return self._read({"versionAsOf": str(version)}, name)
        except AnalysisException as error:
            if error.getCondition() != "DELTA_VERSION_NOT_FOUND":
                raise
            raise UsageError(
                f"table {name!r} has no version {version}; the newest is {self.head(name)[0]}, and the log of old ones "
                "is kept for the table's delta.logRetentionDuration only"
            ) from error

    def changes(self, name: str, *, first: int, last: int) -> DataFrame:
        """The change data feed between two versions, both included."""
        return self._read({"readChangeFeed": "true", "startingVersion": str(first), "endingVersion": str(last)}, name)

    def version(self, name: str) -> int:
        """The Delta version of a table: its newest, or that of the moment at which the lake is read."""
        found = None if self._moment is None else self._moment.version(name)
        return self.head(name)[0] if found is None else found

    def commits(self, name: str, *, limit: int) -> list[tuple[int, int]]:
        """The latest versions of a table, newest first, each with the time of its commit in ms since 1970."""
        from pyspark.sql import functions as F

        commits = self._delta(name).history(limit).select("version", F.unix_millis("timestamp").alias("at_ms"))
        return [(row["version"], row["at_ms"]) for row in commits.orderBy(F.desc("version")).collect()]

    def head(self, name: str) -> tuple[int, str]:
        """The newest Delta version of a table, and Delta's id of it: another id means that it was made anew.

        Asks Delta's log directly where the session has a JVM with open-source Delta, which takes milliseconds; the
        public way takes two Spark jobs.
        """
        spark: Any = self.spark
        try:
            log = spark._jvm.org.apache.spark.sql.delta.DeltaLog.forTable(spark._jsparkSession, self._location(name))
            none = spark._jvm.scala.Option.empty()
            snapshot = log.update(False, none, none)
            return snapshot.version(), snapshot.metadata().id()
        except Exception:  # Spark Connect, or another Delta: whatever is wrong with the table shows below
            delta = self._delta(name)
            version = delta.history(1).select("version").collect()[0]["version"]
            return version, delta.detail().select("id").collect()[0]["id"]

    def ensure(self, table: Table, *, extra: Sequence[Column] = ()) -> None:
        """Make the table, or add nullable columns that its declaration has gained.

        Fields at the end of structs are added as well. Raises StageError before any work where the table differs in
        another way.
        """
        self.check_writable()
        wanted = table.with_columns(extra)
        with self._ensuring:  # who needs a table that another thread makes waits for it
            if table.name in self._ensured and not extra:
                return
            if not self.exists(table.name):
                self._create(wanted)
                self._made[table.name] = self.head(table.name)[1]
            else:
                self._evolve(wanted)
            self._ensured.add(table.name)

    def is_untouched(self, name: str) -> bool:
        """Whether this very object made a table, and nobody has written to it since: then there is no row in it."""
        return name in self._made and not self._commits[name] and self.is_own_since(name, Mark(head=None, commits=0))

    def mark(self, name: str) -> Mark:
        """The table as it is, for `is_own_since`."""
        return Mark(head=self.head(name) if self.exists(name) else None, commits=self._commits[name])

    def is_own_since(self, name: str, mark: Mark) -> bool:
        """Whether nobody but this very object has made or written a table since the mark."""
        if not self.exists(name):
            return mark.head is None and name not in self._made
        version, table_id = self.head(name)
        before, same_id = mark.head or (0, self._made.get(name))
        # An append of ours that Delta skipped makes them differ, but for the commit of another's that it repeats.
        return table_id == same_id and version - before == self._commits[name] - mark.commits

    def append(self, name: str, rows: DataFrame, *, transaction: str) -> None:
        """Append rows once: Delta skips a second append that bears the same transaction id."""
        self.check_writable()
        writer = rows.write.format("delta").mode("append").option("txnAppId", transaction).option("txnVersion", "1")
        writer.saveAsTable(f"{self.uri}.{name}") if self.in_catalog else writer.save(self.path(name))
        self._commits[name] += 1

    def insert(self, name: str, rows: DataFrame, *, on: str) -> None:
        """Insert the rows that no row `t` of the table matches; a concurrent writer of the same keys makes it fail."""
        self.check_writable()
        merge = self._delta(name).alias("t").merge(rows.alias("s"), on)
        merge.whenNotMatchedInsert(values={c: f"s.`{c}`" for c in rows.columns}).execute()
        self._commits[name] += 1

    def merge(self, name: str, rows: DataFrame, *, on: str, unless: str | None = None) -> None:
        """Apply rows with an `_op` column (insert, update, delete); a matched row for which `unless` holds stays."""
        self.check_writable()
        columns = {c: f"s.`{c}`" for c in rows.columns if c != "_op"}
        guard = f" AND NOT coalesce({unless}, false)" if unless else ""
        (
            self._delta(name)
            .alias("t")
            .merge(rows.alias("s"), on)
            .whenMatchedDelete(f"s._op = 'delete'{guard}")
            .whenMatchedUpdate(f"s._op <> 'delete'{guard}", columns)  # pyright: ignore[reportArgumentType] -- str values are SQL
            .whenNotMatchedInsert("s._op <> 'delete'", columns)  # pyright: ignore[reportArgumentType] -- str values are SQL
            .execute()
        )
        self._commits[name] += 1

    def update(self, name: str, *, where: str, values: Mapping[str, str]) -> None:
        """Set columns (SQL expressions) of the rows for which `where` holds."""
        self.check_writable()
        self._delta(name).update(where, dict(values))
        self._commits[name] += 1

    def _location(self, name: str) -> str:
        if not self.in_catalog:
            return self.path(name)
        return self._delta(name).detail().select("location").collect()[0]["location"]

    def _read(self, options: Mapping[str, str], name: str) -> DataFrame:
        reader = self.spark.read.format("delta").options(**options)
        return reader.table(f"{self.uri}.{name}") if self.in_catalog else reader.load(self.path(name))

    def _delta(self, name: str) -> DeltaTable:
        from delta.tables import DeltaTable

        if self.in_catalog:
            return DeltaTable.forName(self.spark, f"{self.uri}.{name}")
        return DeltaTable.forPath(self.spark, self.path(name))

    def _view(self, view: View) -> DataFrame:
        tables = {name: self._as_declared(name) for name in view.reads}
        statement = view.statement(
            {name: f"{{{name}}}" for name in view.reads}, columns={n: frame.columns for n, frame in tables.items()}
        )
        return self.spark.sql(statement, args=None, **tables)

    def _as_declared(self, name: str) -> DataFrame:
        """A table with the columns and fields that it has gained since it was written: a reader may not add them."""
        from pyspark.sql import functions as F

        rows, declared = self.table(name), declaration(name)
        if isinstance(declared, View):
            return rows
        wanted = {field.name: field.dataType for field in struct_type(declared.ddl).fields}
        kinds = {field.name: field.dataType for field in rows.schema.fields}
        values = [fitted(F.col(f"`{n}`"), kind, wanted.get(n, kind)).alias(n) for n, kind in kinds.items()]
        gained = [F.lit(None).cast(kind).alias(n) for n, kind in wanted.items() if n not in kinds]
        return rows.select(*values, *gained)

    def _create(self, table: Table) -> None:
        from delta.tables import DeltaTable

        builder = DeltaTable.createIfNotExists(self.spark).comment(table.comment)
        builder = (
            builder.tableName(f"{self.uri}.{table.name}")
            if self.in_catalog
            else builder.location(self.path(table.name))
        )
        for column in table.columns:
            builder = builder.addColumn(column.name, column.type, nullable=column.nullable, comment=column.comment)
        for key, value in {**PROPERTIES, **table.properties}.items():
            builder = builder.property(key, value)
        if table.cluster_by:
            builder = builder.clusterBy(*table.cluster_by)
        builder.execute()

    def _evolve(self, table: Table) -> None:
        actual = {f.name: f.dataType for f in self._read({}, table.name).schema.fields}
        wanted = {f.name: f.dataType for f in struct_type(table.ddl).fields}
        columns = {c.name: c for c in table.columns}
        inner = {n: added_fields(actual[n], wanted[n], path=f"`{n}`") for n in wanted if n in actual}
        problems = [
            f"column {name} is {actual[name].simpleString()}, declared {wanted[name].simpleString()}"
            for name, fields in inner.items()
            if fields is None
        ]
        missing = [name for name in wanted if name not in actual]
        problems += [f"column {name} is missing and may not be null" for name in missing if not columns[name].nullable]
        if not table.is_open:
            problems += [f"column {name} is not declared" for name in actual if name not in wanted]
        if problems:
            raise StageError(
                f"table {table.name} in {self.uri} does not fit its declaration: {'; '.join(sorted(problems))}. "
                "Use the visionlake version that wrote it, or move the table away: the next run makes it anew."
            )
        added = [f"`{n}` {columns[n].type} COMMENT {quoted(columns[n].comment)}" for n in missing]
        added += [f"{path} {kind.simpleString()}" for fields in inner.values() for path, kind in fields or ()]
        if added:
            self.spark.sql(f"ALTER TABLE {self._reference(table.name)} ADD COLUMNS ({', '.join(added)})")
            self._commits[table.name] += 1

    def _reference(self, name: str) -> str:
        return f"{self.uri}.{name}" if self.in_catalog else f"delta.`{self.path(name).replace('`', '``')}`"


def read_errors() -> tuple[type[Exception], ...]:
    """What reading raises where a file or a version is gone: errors of Spark's, of ours, and bare ones of Java's."""
    from pyspark.errors import PySparkException

    try:
        from py4j.protocol import Py4JError
    except ImportError:  # a client of Spark Connect comes without
        return PySparkException, UsageError
    return PySparkException, UsageError, Py4JError


def _is_catalog_schema(uri: str) -> bool:
    return bool(_CATALOG_SCHEMA.fullmatch(uri))
