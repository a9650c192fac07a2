"""Personal links for raters."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from seedpo.errors import ConfigError
from seedpo.study.folder import open_study
from seedpo.study.store import Store


def make_links(
    folder: Path,
    *,
    number: int,
    base: str,
    label: str = "",
    days: float | None = None,
    url: str | None = None,
    out: Path | None = None,
) -> list[str]:
    """New raters, and the address of each.

    Args:
        folder: of the study.
        number: how many.
        base: address under which raters reach the server, with ``http://`` or ``https://``.
        label: the operator's note beside them; several get it with a number.
        days: until the links end; none: as the study says.
        url: of the database; none: what the study says.
        out: where they will be written; checked before any rater is made.

    Raises:
        SeedpoError: the address is none, the file is there, or the study or its database cannot be used.
    """
    if not base.startswith(("http://", "https://")):
        raise ConfigError(f"--base {base} is no address; it begins with http:// or https://")
    if out is not None and out.exists():
        raise ConfigError(f"{out} exists; links cannot be made again, so nothing is written over")
    study = open_study(folder, verify=False)
    store = Store.open(study, url)
    lasting = study.settings.link_days if days is None else days
    try:
        made = store.add_raters(numbered(label, number), days=lasting)
        return [f"{base.rstrip('/')}/r/{token}" for _, token in made]
    finally:
        store.close()


def numbered(label: str, number: int) -> list[str]:
    """A label for each of several raters."""
    return [label if number == 1 or not label else f"{label} {index + 1}" for index in range(number)]


def write_links(path: Path, links: Sequence[str]) -> None:
    """One link per line, readable by the owner only.

    Raises:
        ConfigError: the file is there already or cannot be written.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write("".join(f"{link}\n" for link in links))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; the links were made, make new ones with another --out") from error
