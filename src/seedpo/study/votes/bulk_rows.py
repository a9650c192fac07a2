"""Many rows in one statement.

PostgreSQL gets the rows as arrays, one for each column. Its driver would send them one by one, in a pipeline: a server
that lost its client in the middle of that would hold its locks without any limit of time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import sqlalchemy as sa

_ARRAYS: Mapping[type[Any], str] = {sa.BigInteger: "bigint", sa.Float: "float8", sa.Integer: "integer", sa.Text: "text"}


class Bulk:
    """A statement for many rows, on SQLite and on PostgreSQL.

    Args:
        table: that is written.
        columns: that are given.
        key: columns that identify a row; `None`: all rows are new.
        insert: make rows that do not exist; otherwise only change those that do.
    """

    def __init__(self, table: sa.Table, *columns: str, key: Sequence[str] = (), insert: bool = True) -> None:
        self._table = table
        self._columns = columns
        self._key = key
        self._insert = insert
        self._changed = [name for name in columns if name not in key]

    def execute(self, connection: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes rows, in their order.

        Args:
            connection: in a transaction.
            rows: values by column.
        """
        if not rows:
            return
        if connection.dialect.name == "postgresql":
            arrays = {name: [row[name] for row in rows] for name in self._columns}
            connection.exec_driver_sql(self._postgresql, arrays)
        else:
            connection.exec_driver_sql(self._sqlite, [tuple(row[name] for name in self._order) for row in rows])

    @cached_property
    def _order(self) -> Sequence[str]:
        return self._columns if self._insert else [*self._changed, *self._key]

    @cached_property
    def _sqlite(self) -> str:
        if not self._insert:
            return f"UPDATE {self._table.name} SET {_each(self._changed, '{0} = ?')} WHERE {self._same('{0} = ?')}"
        return f"{self._into} VALUES ({', '.join('?' * len(self._columns))}) {self._conflict}"

    @cached_property
    def _postgresql(self) -> str:
        arrays = ", ".join(f"%({name})s::{self._type(name)}[]" for name in self._columns)
        names = _each(self._columns, "{0}")
        if not self._insert:
            changes = _each(self._changed, "{0} = new.{0}")
            same = self._same(f"{self._table.name}.{{0}} = new.{{0}}")
            return f"UPDATE {self._table.name} SET {changes} FROM unnest({arrays}) AS new ({names}) WHERE {same}"
        rows = f"SELECT {names} FROM unnest({arrays}) WITH ORDINALITY AS new ({names}, place) ORDER BY place"
        return f"{self._into} {rows} {self._conflict}"

    @property
    def _into(self) -> str:
        return f"INSERT INTO {self._table.name} ({_each(self._columns, '{0}')})"

    @property
    def _conflict(self) -> str:
        if not self._key:
            return ""
        changes = _each(self._changed, "{0} = excluded.{0}")
        return f"ON CONFLICT ({_each(self._key, '{0}')}) DO UPDATE SET {changes}"

    def _same(self, form: str) -> str:
        return " AND ".join(form.format(f'"{name}"') for name in self._key)

    def _type(self, name: str) -> str:
        kind = self._table.c[name].type
        return next(array for base, array in _ARRAYS.items() if isinstance(kind, base))


def _each(names: Sequence[str], form: str) -> str:
    return ", ".join(form.format(f'"{name}"') for name in names)
