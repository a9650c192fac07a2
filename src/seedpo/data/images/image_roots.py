"""Where the paths of images begin, if not in the folder of the file that names them.

HPDv2's ``train.json`` names the files of ``train/`` beside it; ImageRewardDB's files, deep in the set, name paths from
its root on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from seedpo.data.images.reading import stored_path
from seedpo.errors import DataError

TRIED = 20
"""Images that are looked for."""

Named = tuple[object, Path | None]
"""The cell of an image, and the folder of the file that names it."""


def image_root(images: Sequence[Named], places: Sequence[Path]) -> Path | None:
    """The folder in which paths of images begin; ``None``: each in the folder of its file, as usual.

    Args:
        images: the first images of a set.
        places: folders that may be it, the likeliest first. One is, if no image lies where it usually would, and most
            of them lie there.
    """
    if any(_is_there(cell, folder) for cell, folder in images):
        return None
    for place in places:
        if sum(_is_there(cell, place) for cell, _ in images) * 2 > len(images):
            return place
    return None


def likely_roots(origin: str, files: Sequence[Path]) -> list[Path]:
    """Folders in which the paths of a set may begin: that with the name of its one file, and that which the user named.

    Args:
        origin: what the user named.
        files: that are read.
    """
    beside = [files[0].with_suffix("")] if len(files) == 1 and files[0].suffix else []
    return [place for place in (*beside, Path(origin)) if place.is_dir()]


def _is_there(cell: object, folder: Path | None) -> bool:
    try:
        path = stored_path(cell, folder=folder)
        return path is not None and path.is_file()
    except (DataError, OSError, ValueError):  # a name that is too long, ...
        return False
