"""Prompt sets that ship with the package: one text file each, with a prompt on each line."""

from __future__ import annotations

from importlib.resources import files


def animals() -> list[str]:
    """The 45 animals of DDPO's simple task (arXiv 2305.13301), on which D3PO was trained too."""
    return _lines("animals")


def general_evaluation() -> list[str]:
    """24 prompts for evaluations: objects, people, places, and counts, colours and positions that can be checked."""
    return _lines("general-evaluation")


def _lines(name: str) -> list[str]:
    return (files(__name__) / f"{name}.txt").read_text(encoding="utf-8").splitlines()
