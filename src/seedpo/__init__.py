"""seedpo: preference alignment of text-to-image diffusion models, with a self-entropy term.

The names below are imported when they are first used, so that the command line answers at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PUBLIC = {
    "RunConfig": "seedpo.training.settings",
    "SeedpoError": "seedpo.errors",
    "build_evaluation": "seedpo.training.run",
    "build_method": "seedpo.training.run",
    "build_policy": "seedpo.models.policy",
    "build_source": "seedpo.training.run",
    "resolve_config": "seedpo.training.configuration",
    "train": "seedpo.training.run",
    "write_report": "seedpo.reports",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'seedpo' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
