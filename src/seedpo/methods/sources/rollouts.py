"""What the online sources share: prompts in, pairs of steps out, batch after batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Protocol

import torch
from torch import Tensor

from seedpo.core.types import StepBatch
from seedpo.data.pairs.fingerprints import prompts_fingerprint
from seedpo.errors import SeedpoError
from seedpo.methods.sources.embeddings import PromptEmbeddings
from seedpo.methods.sources.step_pairs import StepPairs, join, step_batch
from seedpo.methods.sources.stream import IndexStream
from seedpo.protocols import Fingerprint, State

_EMPTY_ROLLOUTS = 20
"""Consecutive roll-outs without a clear pair after which a run gives up."""


class Rollout(Protocol):
    """Samples from the policy and makes pairs of what it drew."""

    def __call__(
        self, prompts: Sequence[str], *, generator: torch.Generator, number: int
    ) -> tuple[StepPairs | None, Mapping[str, float]]:
        """Pairs, or ``None`` if no pair is clear enough, and what was observed.

        Args:
            prompts: what to sample.
            generator: a CPU generator.
            number: how many roll-outs this process made before.
        """


class PairBuffer:
    """Pairs waiting to be trained on, in the CPU's memory.

    A pass over a roll-out is an order of its units, so several passes hold no copy of the latents.

    Args:
        passes: how often each unit is handed out.
    """

    def __init__(self, *, passes: int) -> None:
        self.passes = passes
        self._pairs: StepPairs | None = None
        self._queue: Tensor = torch.zeros(0, dtype=torch.int64)
        """Units in the order in which they are handed out."""

    def __len__(self) -> int:
        """Units that wait, every pass counted."""
        return len(self._queue)

    def prompts(self) -> tuple[str, ...]:
        """Prompts of the waiting pairs."""
        return () if self._pairs is None else self._pairs.prompts

    def fill(self, pairs: StepPairs, *, generator: torch.Generator) -> None:
        """Appends a roll-out to what is left of the last one; each pass is shuffled by itself."""
        pairs = pairs.with_latents_on("cpu")
        self._drop_finished()
        waiting = 0 if self._pairs is None else self._pairs.units()
        shuffled = [torch.randperm(pairs.units(), generator=generator) + waiting for _ in range(self.passes)]
        self._pairs = pairs if self._pairs is None else join([self._pairs, pairs])
        self._queue = torch.cat([self._queue, *shuffled])

    def take(self, count: int) -> StepPairs:
        """The pairs of the next units; there must be as many."""
        pairs = self._pairs
        assert pairs is not None
        units, self._queue = self._queue[:count], self._queue[count:]
        return pairs.select(torch.cat([(pairs.unit == unit).nonzero()[:, 0] for unit in units]))

    def _drop_finished(self) -> None:
        """Frees the memory of pairs that will not be handed out again."""
        if self._pairs is None:
            return
        waiting, self._queue = torch.unique(self._queue, return_inverse=True)
        rows = torch.isin(self._pairs.unit, waiting).nonzero()[:, 0]
        self._pairs = self._pairs.select(rows) if len(rows) else None

    def state(self) -> State:
        """The waiting latents, numbers and prompts, each once."""
        self._drop_finished()
        if self._pairs is None:
            return {}
        values = {entry.name: getattr(self._pairs, entry.name) for entry in fields(self._pairs)}
        return {**values, "prompts": list(self._pairs.prompts), "queue": self._queue}

    def restore(self, state: State) -> None:
        """Takes back what :meth:`state` gave."""
        if not state:
            self._pairs, self._queue = None, torch.zeros(0, dtype=torch.int64)
            return
        values = {name: value for name, value in state.items() if name not in ("queue", "prompts")}
        self._pairs = StepPairs(**values, prompts=tuple(state["prompts"]))
        self._queue = state["queue"]


class RolloutSource:
    """Batches of pairs that the policy makes itself, with a roll-out whenever they run out.

    A batch holds ``batch_size`` units. A unit is what the roll-out gave one number: a single pair, or a group of pairs.

    Args:
        rollout: makes the pairs.
        prompts: prompts to draw from, shuffled in every epoch.
        embeddings: looks up embedded prompts; batches are on its device.
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
        """Roll-outs so far."""
        self._observed: list[Mapping[str, float]] = []

    def next_batch(self) -> StepBatch:
        """The next pairs, after as many roll-outs as they need.

        Raises:
            SeedpoError: if many consecutive roll-outs give no pair.
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

    def _roll_out(self) -> StepPairs | None:
        prompts = [self.prompts[row] for row in self._stream.take(self.prompts_per_rollout)]
        pairs, observed = self.rollout(prompts, generator=self._generator, number=self._number)
        self._number += 1
        self._observed.append(observed)
        return pairs

    def fingerprints(self) -> Mapping[str, Fingerprint]:
        """That of the prompts."""
        return {"prompts": prompts_fingerprint(self.prompts)}

    def metrics(self) -> Mapping[str, float]:
        """Means since the last call, each over the roll-outs that observed it."""
        observed, self._observed = self._observed, []
        values: dict[str, list[float]] = {}
        for rollout in observed:
            for name, value in rollout.items():
                values.setdefault(name, []).append(value)
        return {name: sum(some) / len(some) for name, some in values.items()}

    def state(self) -> State:
        """Position in the prompts, generator, number of roll-outs, waiting pairs, and what was observed since."""
        return {
            "stream": self._stream.state(),
            "generator": self._generator.get_state(),
            "buffer": self._buffer.state(),
            "number": self._number,
            "observed": [dict(rollout) for rollout in self._observed],
        }

    def restore(self, state: State) -> None:
        """Takes back what :meth:`state` gave."""
        self._stream.restore(state["stream"])
        self._generator.set_state(state["generator"])
        self._buffer.restore(state["buffer"])
        self._number = int(state["number"])
        self._observed = [dict(rollout) for rollout in state["observed"]]


def preference(first: Tensor, second: Tensor) -> Tensor:
    """Softmax of two scores, the first's share minus the second's, in [-1, 1]; scores broadcast."""
    return torch.tanh((first - second) / 2.0)
