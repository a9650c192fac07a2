"""How often a preference model agrees with held-out choices, at each time step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from seedpo.core.stats.classical import wilson_interval
from seedpo.data.pairs.fingerprints import fingerprint_of
from seedpo.errors import TrainingDiverged
from seedpo.protocols import Fingerprint, PairEncoder, PreferencePairs, State
from seedpo.rewards.preference_model import PairModel
from seedpo.rewards.preference_objective import Prompts
from seedpo.rewards.previews import Views


class PreferenceEvaluation:
    """Accuracy on held-out pairs: the same pairs and the same noise at every evaluation. Ties are left out.

    Args:
        pairs: held-out pairs, encoded.
        prompts: their prompts.
        views: how the model sees them, and at which time steps.
        rows: numbers of the pairs that are evaluated.
        batch_size: pairs at a time; whole batches are divided among processes.
        seed: seed of the noise, which for each pair and time step is its own.
        progress: whether to show a progress bar.
        reader: the set as it is read, for its fingerprint; ``None``: it has none.
    """

    def __init__(
        self,
        pairs: PairEncoder,
        prompts: Prompts,
        views: Views,
        *,
        rows: Sequence[int],
        batch_size: int = 64,
        seed: int = 0,
        progress: bool = False,
        reader: PreferencePairs | None = None,
    ) -> None:
        self.pairs = pairs
        self.prompts = prompts
        self.views = views
        self.rows = list(rows)
        self.batch_size = batch_size
        self.seed = seed
        self.progress = progress
        self.reader = reader

    def fingerprints(self) -> Mapping[str, Fingerprint]:
        """What tells the held-out pairs from others."""
        return {} if self.reader is None else {"held_out": fingerprint_of(self.reader)}

    def __call__(self, policy: PairModel, *, step: int, folder: Path) -> Mapping[str, float]:
        """Measures on one process; see :meth:`measure`."""
        return self.measure([self.draw(policy, rank=0, world=1)], step=step, folder=folder)

    @torch.no_grad()
    def draw(self, policy: PairModel, *, rank: int, world: int) -> State:
        """Margins and labels of every ``world``-th batch: ``{"margins": (N, time steps), "chosen": (N,)}``."""
        starts = range(rank * self.batch_size, len(self.rows), world * self.batch_size)
        steps = self.views.timesteps
        margins: list[Tensor] = [torch.zeros(0, len(steps))]
        chosen: list[Tensor] = [torch.zeros(0)]
        bar = tqdm(starts, desc="held-out pairs", disable=not self.progress or rank > 0, leave=False)
        for start in bar:
            rows = self.rows[start : start + self.batch_size]
            batch = replace(self.pairs.encode(rows, [False] * len(rows)), pair=torch.tensor(rows))
            prompts = self.prompts(rows)
            logits = [policy.compare(self.views.at(batch, step, seed=self.seed), prompts).logits for step in steps]
            margins.append(torch.stack([scores[:, 0] - scores[:, 1] for scores in logits], dim=1).float().cpu())
            label = batch.chosen_probability
            chosen.append(torch.ones(len(rows)) if label is None else label.cpu())
        return {"margins": torch.cat(margins), "chosen": torch.cat(chosen)}

    def measure(self, parts: Sequence[State], *, step: int, folder: Path) -> Mapping[str, float]:
        """``accuracy/t=<step>`` for each time step (``accuracy`` for finished images), with ``/low`` and ``/high``.

        Args:
            parts: what :meth:`draw` gave on each process.
            step: optimiser steps taken.
            folder: not used; this evaluation stores nothing.

        Raises:
            TrainingDiverged: if a score is not finite.
        """
        margins = torch.cat([part["margins"] for part in parts])
        decided = torch.cat([part["chosen"] for part in parts]) != 0.5
        if not torch.isfinite(margins).all():
            raise TrainingDiverged(
                f"step {step}: scores of held-out pairs are not finite, so the weights have diverged; "
                "lower learning_rate"
            )
        figures: dict[str, float] = {}
        for timestep, column in zip(self.views.timesteps, margins[decided].T, strict=True):
            name = "accuracy" if timestep is None else f"accuracy/t={timestep}"
            right = float((column > 0).sum()) + 0.5 * float((column == 0).sum())
            low, high = wilson_interval(right, len(column))
            figures |= {name: right / len(column), f"{name}/low": low, f"{name}/high": high}
        return figures | {"held_out_pairs": float(decided.sum())}
