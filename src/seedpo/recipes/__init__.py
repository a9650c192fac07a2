"""Recipes that ship with the package, by the names of their files: published runs, and runs that fit usual GPUs."""

from __future__ import annotations

from pathlib import Path

from seedpo.registry import Entry, Registry

FOLDER = Path(__file__).parent


def _entry(path: Path) -> Entry:
    with path.open(encoding="utf-8") as file:
        return Entry(name=path.stem, target="seedpo.recipes:FOLDER", summary=file.readline().lstrip("# ").rstrip())


RECIPES = Registry("recipe", tuple(map(_entry, sorted(FOLDER.glob("*.yaml")))))
"""Each with the first line of its file as its summary."""


def is_recipe(name: str) -> bool:
    """Whether a text names a recipe: a YAML file, or a recipe that ships with the package."""
    return name.endswith((".yaml", ".yml")) or name in RECIPES


def recipe_file(name: str, *, beside: Path = Path()) -> Path:
    """The file of a recipe: that of the package if there is one of this name, else a path.

    Args:
        name: as the user wrote it.
        beside: folder in which a path begins.
    """
    return FOLDER / f"{name}.yaml" if name in RECIPES else beside / name
