"""Which files of a folder are images, and what is said of the others."""

from __future__ import annotations

from pathlib import Path

from seedpo.data.images.signatures import foreign_image, may_be_image


def is_image_file(path: Path) -> bool | str:
    """Whether a search takes a file for an image, by its ending or its content; a text says what it is instead."""
    if may_be_image(path):
        return True
    kind = f"files {path.suffix.lower()}" if path.suffix else "files without an ending"
    known = foreign_image(path)
    return f"{kind} ({known}, which is not read)" if known else kind
