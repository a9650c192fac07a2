"""Loss, margin and accuracy on held-out pairs: the same pairs, time steps and noise at every evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seedpo.core.stats.bootstrap import grouped_mean_ends
from seedpo.core.types import ImagePairs
from seedpo.data.images.buckets import Size, grouped
from seedpo.data.pairs.fingerprints import fingerprint_of
from seedpo.errors import TrainingDiverged
from seedpo.evaluation.settings import ACCURACY, LOSS, MARGIN
from seedpo.protocols import DataReader, Fingerprint, Method, PairEncoder, PreferencePairs, SharedEvaluator, State

Prompts = Callable[[Sequence[int]], Sequence[str]]
"""Prompts of pairs by their numbers."""


class PairValidation:
    """Measures a policy against its reference on labelled pairs that it is not trained on.

    The margin of a pair is its mean over several draws of time step and noise. The pair is ranked right if that mean is
    above 0; a margin of exactly 0 counts one half, and so does a tie among the labels. Every pair weighs the same.

    Args:
        pairs: the held-out pairs, encoded.
        prompts: their prompts, by which the intervals group the pairs.
        method: the objective; its draws must be a function of pair and visit alone.
        rows: numbers of the pairs that are measured.
        draws: of each pair.
        batch_size: pairs at a time; whole batches are divided among processes, so that their number changes nothing.
        buckets: height and width of the images of each pair of the set; ``None``: one size for all.
        seed: of the resampling.
        reader: the set as it is read, for its fingerprint; ``None``: it has none.
    """

    def __init__(
        self,
        pairs: PairEncoder,
        prompts: Prompts,
        method: Method[ImagePairs],
        *,
        rows: Sequence[int],
        draws: int,
        batch_size: int,
        buckets: Sequence[Size] | None = None,
        seed: int = 0,
        reader: PreferencePairs | None = None,
    ) -> None:
        self.pairs = pairs
        self.prompts = prompts
        self.method = method
        self.rows = list(rows)
        self.draws = draws
        self.batches = grouped(self.rows, buckets, size=batch_size)
        self.seed = seed
        self.reader = reader

    def fingerprints(self) -> Mapping[str, Fingerprint]:
        """What tells the held-out pairs from others."""
        return {} if self.reader is None else {"pairs.validation": fingerprint_of(self.reader)}

    def __call__(self, policy: Any, *, step: int, folder: Path) -> Mapping[str, float]:
        """Measures on one process; see :meth:`measure`."""
        return self.measure([self.draw(policy, rank=0, world=1)], step=step, folder=folder)

    @torch.no_grad()
    def draw(self, policy: Any, *, rank: int, world: int) -> State:
        """Every ``world``-th batch: rows (N,), label probabilities (N,), losses and margins (N, draws), float64."""
        parts: list[tuple[Tensor, ...]] = [
            (torch.zeros(0, dtype=torch.int64), _wide(torch.zeros(0)), *[_wide(torch.zeros(0, self.draws))] * 2)
        ]
        for numbers in self.batches[rank::world]:
            rows = torch.tensor(numbers, dtype=torch.int64)
            batch = replace(self.pairs.encode(rows.tolist(), [False] * len(rows)), pair=rows)
            outputs = [
                self.method.loss(
                    policy, replace(batch, visit=torch.full_like(rows, visit)), generator=torch.Generator()
                )
                for visit in range(self.draws)
            ]
            label = batch.chosen_probability
            parts.append(
                (
                    rows,
                    _wide(torch.ones(len(rows)) if label is None else label),
                    torch.stack([_wide(output.losses) for output in outputs], 1),
                    torch.stack([_wide(output.metrics["rewards/margins"]) for output in outputs], 1),
                )
            )
        names = ("rows", "probabilities", "losses", "margins")
        return {name: torch.cat(values) for name, values in zip(names, zip(*parts, strict=True), strict=True)}

    def measure(self, parts: Sequence[State], *, step: int, folder: Path) -> Mapping[str, float]:
        """``validation/accuracy``, ``/loss`` and ``/margin``, each with the ends of its 95 % interval over prompts.

        Args:
            parts: what :meth:`draw` gave on each process.
            step: optimiser steps taken.
            folder: not used; nothing is stored.

        Raises:
            TrainingDiverged: if a loss or a margin is not finite.
        """
        joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        order = joined.pop("rows").argsort()
        probabilities, losses, margins = (joined[name][order] for name in ("probabilities", "losses", "margins"))
        if not (torch.isfinite(losses).all() and torch.isfinite(margins).all()):
            raise TrainingDiverged(
                f"step {step}: losses of held-out pairs are not finite, so the weights have diverged; "
                "lower learning_rate, beta or gamma"
            )
        margin = margins.mean(1)
        side = torch.sign(margin)
        by_pair = {
            ACCURACY: 0.5 + side * (probabilities - 0.5),
            LOSS: losses.mean(1),
            MARGIN: margin,
        }
        groups = np.asarray(self.prompts(sorted(self.rows)))
        figures: dict[str, float] = {}
        for name, values in by_pair.items():
            figures[name] = float(values.mean())
            if len(set(groups.tolist())) > 1:
                ends = grouped_mean_ends(values.numpy(), groups, seed=self.seed)
                figures |= {f"{name}/low": ends[0], f"{name}/high": ends[1]}
        return figures


class JoinedEvaluation:
    """Several evaluators as one, whose figures stand in one line.

    Args:
        evaluators: in the order in which they work.
    """

    def __init__(self, evaluators: Sequence[SharedEvaluator]) -> None:
        self.evaluators = list(evaluators)

    def fingerprints(self) -> Mapping[str, Fingerprint]:
        """What tells the data that they read from others."""
        readers = [part for part in self.evaluators if isinstance(part, DataReader)]
        return {key: value for reader in readers for key, value in reader.fingerprints().items()}

    def __call__(self, policy: Any, *, step: int, folder: Path) -> Mapping[str, float]:
        """The figures of all."""
        figures: dict[str, float] = {}
        for evaluator in self.evaluators:
            figures |= evaluator(policy, step=step, folder=folder)
        return figures

    def draw(self, policy: Any, *, rank: int, world: int) -> State:
        """The parts of all, by their number."""
        return {
            str(number): evaluator.draw(policy, rank=rank, world=world)
            for number, evaluator in enumerate(self.evaluators)
        }

    def measure(self, parts: Sequence[State], *, step: int, folder: Path) -> Mapping[str, float]:
        """The figures of all, from the parts of all processes."""
        figures: dict[str, float] = {}
        for number, evaluator in enumerate(self.evaluators):
            figures |= evaluator.measure([part[str(number)] for part in parts], step=step, folder=folder)
        return figures


def _wide(values: Tensor) -> Tensor:
    return values.detach().cpu().double()
