"""Words and numbers of the tables in docs/results.md and its appendix, and where on the pages they stand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from seedpo.core.verdicts import Difference
from seedpo.pages.tables import DASH
from seedpo.pages.wording import MINUS

DOCS = Path(__file__).parents[1] / "docs"
RESULTS_PAGE, APPENDIX_PAGE = "results.md", "results-appendix.md"

WORDS: Mapping[Difference, str] = {
    Difference.HIGHER: "more",
    Difference.LOWER: "less",
    Difference.NOT_SHOWN: "not shown",
    Difference.NOT_COMPARABLE: "no common proxies",
}


def two(value: float, digits: int = 2) -> str:
    """A number with two decimals, or as many as are asked for, and a real minus sign; a dash for NaN."""
    if not math.isfinite(value):
        return DASH
    text = f"{value:.{digits}f}"
    return (text.lstrip("-") if float(text) == 0 else text).replace("-", MINUS)


def with_interval(value: float, low: float, high: float, *, signed: bool = False, digits: int = 2) -> str:
    """A number and its interval, each with as many decimals."""
    sign = "+" if signed and value > 0 else ""
    return f"{sign}{two(value, digits)} [{two(low, digits)}, {two(high, digits)}]"


def between_marks(page: str, text: str, name: str) -> str:
    """The page with this text in the place of what stood between ``<!-- name: begin -->`` and ``<!-- name: end -->``.

    Raises:
        ValueError: if the page has no such lines.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"the page has no lines {begin} and {end}; write them where the tables belong")
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"


def write_blocks(blocks: Mapping[str, Mapping[str, str]], docs: Path = DOCS) -> None:
    """Writes texts between the marks of pages and says which pages they are.

    Args:
        blocks: text by the name of its marks, by the name of the page.
        docs: folder of the pages.

    Raises:
        ValueError: if a page lacks the marks.
    """
    for name, texts in blocks.items():
        page = (docs / name).read_text("utf-8")
        for mark, text in texts.items():
            page = between_marks(page, text, mark)
        (docs / name).write_text(page, "utf-8")
        print(docs / name)
