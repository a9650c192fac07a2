"""What became of all that lies at a place: which files were read, which were not and why, and where the rows went."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from seedpo.data.files.search import PassedOver

SHOWN = 3
"""Names that a line gives of each kind; JSON has them all."""


@dataclass(frozen=True, kw_only=True)
class FileRead:
    """A file of the set.

    Attributes:
        path: of the file.
        split: that its name or folder tells; `None`: none.
        rows: that it holds; `None`: unknown, as of a stream.
    """

    path: Path
    split: str | None = None
    rows: int | None = None


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """What was found at a place, what of it is used, and why the rest is not.

    Attributes:
        origin: what the place is called.
        files: those that are read, in their order.
        passed: what was passed over, by folder and reason.
        notes: further facts about the choice of the files, one line each.
        rows: found on the disk, faulty ones included; `None`: unknown, as of a stream.
        used: rows of which a pair is made; `None`: unknown.
        left_out: other rows by the reason why they are not used, such as ties.
    """

    origin: str
    files: tuple[FileRead, ...] = ()
    passed: tuple[PassedOver, ...] = ()
    notes: tuple[str, ...] = ()
    rows: int | None = None
    used: int | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)

    def with_files(self, rows: Mapping[Path, int]) -> Inventory:
        """The same with the number of rows of each file."""
        return replace(self, files=tuple(replace(entry, rows=rows.get(entry.path, 0)) for entry in self.files))

    def with_rows(self, rows: int, *, used: int, left_out: Mapping[str, int]) -> Inventory:
        """The same with further rows, besides those that were left out before; reasons of no row are not named."""
        reasons = {**self.left_out, **{name: count for name, count in left_out.items() if count}}
        return replace(self, rows=rows + sum(self.left_out.values()), used=used, left_out=reasons)

    @property
    def passed_counts(self) -> dict[str, int]:
        """What was passed over in all folders together, by reason."""
        counts: Counter[str] = Counter()
        for entry in self.passed:
            counts[entry.reason] += entry.count
        return dict(counts)

    def lines(self) -> list[str]:
        """A few lines for people, whatever the number of files; what there is none of is not named."""
        lines = [f"files read: {_files(self.files)}"] if self.files else []
        lines += self.notes
        if self.passed:
            lines.append("passed over: " + "; ".join(_reason(reason, self.passed) for reason in self.passed_counts))
        if self.rows is not None:
            rest = [f"{count} {reason}" for reason, count in self.left_out.items()]
            lines.append(f"rows: {', '.join([f'{self.rows} found', f'{self.used} used', *rest])}")
        return lines

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {
            "files": [
                {"path": printable(entry.path), "split": entry.split, "rows": entry.rows} for entry in self.files
            ],
            "passed_over": [
                {
                    "folder": printable(entry.path),
                    "reason": entry.reason,
                    "count": entry.count,
                    "example": printable(entry.example),
                }
                for entry in self.passed
            ],
            "notes": list(self.notes),
            "rows": self.rows,
            "used": self.used,
            "left_out": dict(self.left_out),
        }


def _files(files: Sequence[FileRead]) -> str:
    splits = list(dict.fromkeys(entry.split for entry in files if entry.split))
    told = f" of the split{'s' if len(splits) > 1 else ''} {' and '.join(splits)}" if splits else ""
    common = os.path.commonpath([entry.path.parent for entry in files])
    return f"{len(files)}{told} ({_names([os.path.relpath(entry.path, common or '.') for entry in files], len(files))})"


def _reason(reason: str, passed: Sequence[PassedOver]) -> str:
    entries = [entry for entry in passed if entry.reason == reason]
    count = sum(entry.count for entry in entries)
    names = dict.fromkeys(
        f"{entry.path.name}/{entry.example}" if entry.path.name else entry.example for entry in entries
    )
    return f"{reason}: {count} ({_names(list(names), count)})"


def _names(names: Sequence[str], count: int) -> str:
    """A few names of ``count``."""
    shown = [printable(name) for name in names[:SHOWN]]
    return ", ".join(shown + (["..."] if count > len(shown) else []))


def printable(name: str | Path) -> str:
    """A file's name on one line, in letters that any terminal and file of UTF-8 can hold."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in str(name)
    )
