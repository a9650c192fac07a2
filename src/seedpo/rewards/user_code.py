"""Rewards that a user writes: a Python function ``module:function``.

Importing a module runs its code. That is why a name of this form is looked up only where the user wrote it himself, in
a configuration or on the command line, and why a line says which file it is.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module, invalidate_caches
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import torch
from torch import Tensor

from seedpo.errors import DataError, SeedpoError
from seedpo.protocols import Images
from seedpo.registry import unknown
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
    """A user's own function, ``module:function``; the current folder is searched last. Imported once per process.

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
    logger.info("reward %s: the code of %s is run", name, file)
    return UserReward(name, function, file)


def takes_timestep(call: Callable[..., Any]) -> bool:
    """Whether a reward takes a time step."""
    if isinstance(call, UserReward):
        return call.step_aware
    try:
        return "timestep" in signature(call).parameters
    except (TypeError, ValueError):  # some built-in functions have no signature
        return False


def _imported(name: str, path: str) -> ModuleType:
    here = str(Path.cwd())
    invalidate_caches()
    sys.path.append(here)
    try:
        return import_module(path)
    except ModuleNotFoundError as error:
        if error.name and (path == error.name or path.startswith(f"{error.name}.")):
            raise DataError(
                f"reward {name}: there is no module {path}; write {path.replace('.', '/')}.py in {here}, or install it"
            ) from error
        raise DataError(f"reward {name}: its module {path} needs {error.name}, which is not installed") from error
    except (Exception, SystemExit) as error:
        raise DataError(
            f"reward {name}: importing {path} failed with {type(error).__name__}: {error}; fix the module"
        ) from error
    finally:
        del sys.path[len(sys.path) - 1 - sys.path[::-1].index(here)]
