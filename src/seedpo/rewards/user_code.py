"""Rewards that a user writes: a Python function ``module:function``.

Importing a module runs its code. That is why a line says which file it is before it is imported, and why the current
folder is searched only if the command line asks for it: see :mod:`seedpo.rewards.code_places`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module, invalidate_caches
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import torch
from torch import Tensor

from seedpo.errors import DataError, SeedpoError
from seedpo.protocols import Images
from seedpo.registry import unknown
from seedpo.rewards.code_places import code_folder
from seedpo.rewards.scoring import byte_batches, check_counts, checked_scores

logger = logging.getLogger(__name__)


class UserReward:
    """A user's function ``(images (B, 3, H, W) in [0, 1], prompts) -> (B,)``, with a name for its errors.

    It receives tensors only: images of different sizes come in groups of one size. If it has a parameter
    ``timestep``, it is step-aware.

    Args:
        name: ``module:function``.
        function: the function.
        file: its file.
    """

    def __init__(self, name: str, function: Callable[..., Any], file: str) -> None:
        self.name = name
        self.function = function
        self.file = file
        self.step_aware = takes_timestep(function)
        self.device: torch.device | str | None = None

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Sets the device of the images that the function receives; its own networks are not moved."""
        self.device = device or self.device
        return self

    @torch.no_grad()
    def __call__(self, images: Images, prompts: Sequence[str], *, timestep: Tensor | None = None) -> Tensor:
        """Scores (B,) float32.

        Raises:
            DataError: if the counts differ, the function fails, or does not return a finite score for each
                image; the message names it.
        """
        check_counts(images, prompts)
        if isinstance(images, Tensor):
            return self._call(images if self.device is None else images.to(self.device), prompts, timestep)
        scores = torch.empty(len(prompts))
        for rows, pixels in byte_batches(images, device=self.device or "cpu"):
            times = None if timestep is None else timestep[rows]
            scores[rows] = self._call(pixels.float() / 255.0, [prompts[row] for row in rows], times).cpu()
        return scores

    def _call(self, images: Tensor, prompts: Sequence[str], timestep: Tensor | None) -> Tensor:
        extra = {"timestep": timestep} if self.step_aware else {}
        try:
            scores = self.function(images, list(prompts), **extra)
        except SeedpoError:
            raise
        except Exception as error:
            raise DataError(
                f"reward {self.name} failed with {type(error).__name__}: {error}; fix it in {self.file} (called "
                f"with images {tuple(images.shape)} in [0, 1] and {len(prompts)} prompts)"
            ) from error
        return checked_scores(scores, prompts, reward=self.name)


@cache
def user_reward(name: str) -> UserReward:
    """A user's own function, ``module:function``; its folder is searched last. Imported once per process.

    Raises:
        DataError: if it cannot be imported, or is not a function; the message names it and the fix.
    """
    path, _, attribute = name.partition(":")
    module = _imported(name, path)
    file = str(getattr(module, "__file__", None) or f"module {path}")
    function: Any = module
    for part in attribute.split("."):
        if not hasattr(function, part):
            public = [known for known, value in vars(module).items() if known[0] != "_" and callable(value)]
            raise DataError(f"reward {name}: {unknown(f'function of {file}', attribute, public)}")
        function = getattr(function, part)
    if isinstance(function, type) or not callable(function):
        kind = "a class" if isinstance(function, type) else f"of type {type(function).__name__}"
        raise DataError(
            f"reward {name} is {kind}, not a function; write `def {attribute}(images, prompts)` in {file}; it must "
            "return a score for each image"
        )
    return UserReward(name, function, file)


def takes_timestep(call: Callable[..., Any]) -> bool:
    """Whether a reward takes a time step: what its attribute ``step_aware`` says, else its parameters."""
    step_aware = getattr(call, "step_aware", None)
    if isinstance(step_aware, bool):
        return step_aware
    try:
        return "timestep" in signature(call).parameters
    except (TypeError, ValueError):  # some built-in functions have no signature
        return False


def _imported(name: str, path: str) -> ModuleType:
    folder = code_folder(name)
    places = [] if folder is None else [str(folder)]
    invalidate_caches()
    sys.path += places
    try:
        _announce(name, path, folder)
        return import_module(path)
    except ModuleNotFoundError as error:
        if error.name and (path == error.name or path.startswith(f"{error.name}.")):
            raise DataError(f"reward {name}: there is no module {path}; {_way_out(path, folder)}") from error
        raise DataError(f"reward {name}: its module {path} needs {error.name}, which is not installed") from error
    except (Exception, SystemExit) as error:
        raise DataError(
            f"reward {name}: importing {path} failed with {type(error).__name__}: {error}; fix the module"
        ) from error
    finally:
        for place in places:
            del sys.path[len(sys.path) - 1 - sys.path[::-1].index(place)]


def _announce(name: str, path: str, folder: Path | None) -> None:
    """Says whose code is about to run.

    Raises:
        ModuleNotFoundError: if there is none.
    """
    top = path.partition(".")[0]
    spec = find_spec(top)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {top!r}", name=top)
    file = spec.origin or ", ".join(spec.submodule_search_locations or ())
    logger.info("reward %s: the code of %s is run", name, file)


def _way_out(path: str, folder: Path | None) -> str:
    file = f"{path.replace('.', '/')}.py"
    if folder is not None:
        return f"write {file} in {folder}, or install it"
    if Path(file).is_file():
        return f"if you trust {Path(file).absolute()}, write `seedpo --code . ...`, since a file names this reward"
    return "install it, or name its folder with `seedpo --code FOLDER ...`"
