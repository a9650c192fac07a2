"""What docs/study-ethics.md tells an ethics board is what the tables hold."""

from __future__ import annotations

import re
from pathlib import Path

from seedpo.study.votes.tables import erasures, metadata, raters, shows, votes

PAGE = Path(__file__).parents[2] / "docs" / "study-ethics.md"


def test_the_page_names_every_column_that_concerns_a_rater() -> None:
    rows = re.findall(r"^\| (`seedpo_\w+`)? *\| (.+?) \|", PAGE.read_text("utf-8"), re.MULTILINE)
    named: dict[str, list[str]] = {}
    table = ""
    for name, columns in rows:
        table = name.strip("`") or table
        named.setdefault(table, []).extend(re.findall(r"`(\w+)`", columns))
    # Rows of erasures live only inside the transaction that deletes everything of their raters.
    others = {item.name for item in metadata.tables.values() if "rater" in item.columns} - {shows.name, erasures.name}
    assert not others, "a new table concerns raters: tell it on the page"
    assert named == {item.name: [column.name for column in item.columns] for item in (raters, shows, votes)}
