from __future__ import annotations

from seedpo.pages.tables import Badge, Cell, Table, markdown_table, text_table


def test_a_table_as_markdown() -> None:
    cell = Cell(text="+1", badge=Badge(text="higher", tone="good"), small=("[0, 2]", "step 3"))
    table = Table.of(("what", "value"), [("a|b", cell)])
    assert table.markdown.splitlines() == [
        "| what | value |",
        "| --- | --- |",
        "| a\\|b | +1 higher [0, 2], step 3 |",
    ]
    assert markdown_table(("x",), []) == "| x |\n| --- |"


def test_a_table_as_text() -> None:
    rows = [("what", "n"), ("a", "10"), ("bcdef", "2")]
    assert text_table(rows, align=">").splitlines() == ["what    n", "a      10", "bcdef   2"]
    assert text_table(rows, rule=True).splitlines() == ["what   n", "-----  --", "a      10", "bcdef  2"]
