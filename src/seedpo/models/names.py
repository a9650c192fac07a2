"""How models are written: a path, or a place on the hub. Imports no model library."""

from __future__ import annotations

import re
from pathlib import Path

from seedpo.documents import UNREADABLE, read_json
from seedpo.errors import ConfigError, DataError
from seedpo.files import exists

CHECKPOINT_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
"""Endings of single-file checkpoints; only the first is opened."""

_HUB = re.compile(r"(?P<repository>\w[\w.-]*/[\w.-]+)(@(?P<revision>[\w./-]+))?")


def is_hub_name(name: str) -> bool:
    """Whether a text has the form ``owner/name`` or ``owner/name@revision`` and is not a path that exists."""
    path = Path(name)
    return _HUB.fullmatch(name) is not None and path.suffix not in CHECKPOINT_SUFFIXES and not path.exists()


def pipeline_class_name(index: Path) -> str:
    """The class that a pipeline's ``model_index.json`` names.

    Raises:
        DataError: if the file cannot be read or names none.
    """
    try:
        return str(read_json(index)["_class_name"])
    except UNREADABLE as error:
        raise DataError(f"{index} does not name a pipeline class ({error!r})") from error


def looks_like_a_model(name: str) -> bool:
    """Whether a text is an existing path, the name of a checkpoint, or a path or a place on the hub by its form."""
    return exists(name) or "/" in name or Path(name).suffix in CHECKPOINT_SUFFIXES


def hub_place(name: str) -> tuple[str, str | None]:
    """Repository and revision of ``owner/name[@revision]``.

    Raises:
        DataError: if it does not have this form.
    """
    match = _HUB.fullmatch(name)
    if match is None:
        raise DataError(f"{name!r} is neither a folder nor a name of the form owner/name or owner/name@revision")
    return match["repository"], match["revision"]


def repository_name(name: str) -> str:
    """``name`` itself, if it has the form ``owner/name``.

    Raises:
        ConfigError: if it does not.
    """
    match = _HUB.fullmatch(name)
    if match is None or match["revision"]:
        raise ConfigError(f"repository {name!r} is not of the form owner/name")
    return name
