"""What the two online sources share: prompts in, pairs out, batch after batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from seedpo.core.types import StepBatch
from seedpo.errors import SeedpoError
from seedpo.methods.sources.buffer import PairBuffer
from seedpo.methods.sources.embeddings import PromptEmbeddings
from seedpo.methods.sources.rolled import RolledPairs, step_batch
from seedpo.methods.sources.stream import IndexStream
from seedpo.protocols import State

_EMPTY_ROLLOUTS = 20
"""Roll-outs without one clear pair after which a run gives up."""


class Rollout(Protocol):
    """Samples from the policy and makes pairs of what it drew."""

    def __call__(
        self, prompts: Sequence[str], *, generator: torch.Generator, number: int
    ) -> tuple[RolledPairs | None, Mapping[str, float]]:
        """Pairs, or none if no pair is clear enough, and what was observed.

        Args:
            prompts: what to sample.
            generator: a CPU generator.
            number: how many roll-outs this process made before.
        """


class RolloutSource:
    """Batches of pairs that the policy makes itself; a roll-out whenever they run out.

    A batch holds ``batch_size`` units. A unit is what the roll-out gave one number: a single pair, or a group of pairs.

    Args:
        rollout: makes the pairs.
        prompts: prompts to draw from, shuffled in every epoch.
        embeddings: looks up embedded prompts; batches come where it is.
        prompts_per_rollout: prompts of one roll-out.
        updates_per_rollout: how often each unit is handed out.
        batch_size: units per batch.
        share_between_pairs: whether pairs of one batch share the x_t that they start from, as groups do.
        seed: seed of the prompts' order and, with the rank, of the roll-outs.
        rank: number of this process.
        world: number of processes.
    """

    def __init__(
        self,
        rollout: Rollout,
        prompts: Sequence[str],
        embeddings: PromptEmbeddings,
        *,
        prompts_per_rollout: int,
        updates_per_rollout: int,
        batch_size: int,
        share_between_pairs: bool = False,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.rollout = rollout
        self.prompts = prompts
        self.embeddings = embeddings
        self.prompts_per_rollout = prompts_per_rollout
        self.batch_size = batch_size
        self.share_between_pairs = share_between_pairs
        self._stream = IndexStream(len(prompts), seed=seed, rank=rank, world=world)
        self._buffer = PairBuffer(passes=updates_per_rollout)
        self._generator = torch.Generator().manual_seed(seed * 1_000_003 + rank + 1)
        self._number = 0
        """Roll-outs that were made."""
        self._observed: list[Mapping[str, float]] = []

    def next_batch(self) -> StepBatch:
        """The next pairs, after as many roll-outs as they need.

        Raises:
            SeedpoError: if many roll-outs in succession give no pair.
        """
        empty = 0
        while len(self._buffer) < self.batch_size:
            pairs = self._roll_out()
            empty = 0 if pairs is not None else empty + 1
            if empty == _EMPTY_ROLLOUTS:
                raise SeedpoError(
                    f"{empty} roll-outs in succession gave no pair whose preference is clear enough; "
                    "lower min_gap, or look at the samples: they may all be alike"
                )
            if pairs is not None:
                self._buffer.fill(pairs, generator=self._generator)
                self.embeddings.forget_all_but(self._buffer.prompts())
        pairs = self._buffer.take(self.batch_size)
        return step_batch(pairs, self.embeddings, share_between_pairs=self.share_between_pairs)

    def rolls_out_within(self, batches: int) -> bool:
        """Whether so many batches need another roll-out."""
        return len(self._buffer) < batches * self.batch_size

    def _roll_out(self) -> RolledPairs | None:
        prompts = [self.prompts[row] for row in self._stream.take(self.prompts_per_rollout)]
        pairs, observed = self.rollout(prompts, generator=self._generator, number=self._number)
        self._number += 1
        self._observed.append(observed)
        return pairs

    def metrics(self) -> Mapping[str, float]:
        """Means over the roll-outs since the last call that observed each."""
        observed, self._observed = self._observed, []
        found: dict[str, list[float]] = {}
        for entry in observed:
            for name, value in entry.items():
                found.setdefault(name, []).append(value)
        return {name: sum(values) / len(values) for name, values in found.items()}

    def state(self) -> State:
        """Prompts' position, generator, roll-outs made, waiting pairs, and what was observed but not asked for yet."""
        return {
            "stream": self._stream.state(),
            "generator": self._generator.get_state(),
            "buffer": self._buffer.state(),
            "number": self._number,
            "observed": [dict(entry) for entry in self._observed],
        }

    def restore(self, state: State) -> None:
        """Takes back what :meth:`state` gave."""
        self._stream.restore(state["stream"])
        self._generator.set_state(state["generator"])
        self._buffer.restore(state["buffer"])
        self._number = int(state["number"])
        self._observed = [dict(entry) for entry in state["observed"]]


def preference(first: Tensor, second: Tensor) -> Tensor:
    """Softmax of two scores, the first's share less the second's, in [-1, 1]; scores broadcast."""
    return torch.tanh((first - second) / 2.0)


def kept_pairs(chosen_scores: Tensor, rejected_scores: Tensor, *, min_gap: float) -> Tensor:
    """Which pairs are clear: the softmax of the two scores differs by more than ``min_gap``; ties never are."""
    return preference(chosen_scores, rejected_scores) > min_gap
