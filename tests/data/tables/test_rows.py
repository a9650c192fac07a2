from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from seedpo.data.tables.rows import ArrowRows, Table


def test_rows_of_a_table_in_memory() -> None:
    rows: Table = ArrowRows(pa.table({"a": [1, 2, 3], "b": ["x", None, "z"]}), origin="here")
    assert (len(rows), list(rows.columns), rows.origin) == (3, ["a", "b"], "here")
    assert list(rows.values("b")) == ["x", None, "z"]
    assert rows.row(2, ["b", "a"]) == {"b": "z", "a": 3}
    assert rows.row(1, []) == {}
    assert rows.place(1) == "here row 1"
    assert rows.folder(1) == Path()


def test_rows_of_several_chunks_are_counted_through() -> None:
    table = pa.concat_tables([pa.table({"a": [0, 1]}), pa.table({"a": [2]}), pa.table({"a": [3, 4]})])
    rows = ArrowRows(table, origin="here")
    assert [rows.row(row, ["a"])["a"] for row in (4, 2, 0, 3, 1)] == [4, 2, 0, 3, 1]
