"""seedpo: preference alignment of text-to-image diffusion models, with a self-entropy term.

The names below are imported when they are first used, so that the command line answers at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PUBLIC = {
    "RunConfig": "seedpo.config",
    "SeedpoError": "seedpo.errors",
    "build_evaluation": "seedpo.runs",
    "build_method": "seedpo.runs",
    "build_policy": "seedpo.runs",
    "build_source": "seedpo.runs",
    "resolve_config": "seedpo.runs",
    "train": "seedpo.runs",
    "write_report": "seedpo.reports",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'seedpo' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
