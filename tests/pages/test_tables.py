from __future__ import annotations

from seedpo.pages.tables import Badge, Cell, Table, markdown_table


def test_a_table_as_markdown() -> None:
    cell = Cell(text="+1", badge=Badge(text="higher", tone="good"), small=("[0, 2]", "step 3"))
    table = Table.of(("what", "value"), [("a|b", cell)])
    assert table.markdown.splitlines() == [
        "| what | value |",
        "| --- | --- |",
        "| a\\|b | +1 higher [0, 2], step 3 |",
    ]
    assert markdown_table(("x",), []) == "| x |\n| --- |"
