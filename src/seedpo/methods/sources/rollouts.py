"""What the online sources share: prompts in, units of training out, batch after batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor

from seedpo.data.pairs.fingerprints import prompts_fingerprint
from seedpo.errors import SeedpoError
from seedpo.methods.sources.embeddings import PromptEmbeddings
from seedpo.methods.sources.stream import IndexStream
from seedpo.protocols import BatchOut, EarlierProcesses, Fingerprint, State

_EMPTY_ROLLOUTS = 20
"""Consecutive roll-outs without a clear pair after which a run gives up."""


class Drawn(Protocol):
    """What a roll-out makes: a dataclass of tensors and of prompts as text, in units that are handed out whole."""

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts, each once."""

    def units(self) -> int:
        """Number of units; they are numbered from 0 without gaps."""

    def take(self, units: Tensor) -> Self:
        """Some units, (U,) int64, in that order and numbered anew, with only what they need of everything else."""

    def with_latents_on(self, device: torch.device | str) -> Self:
        """The same with the latents on another device; numbers stay on the CPU."""

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Several roll-outs, or parts of one, as one; their units follow each other."""


Record = TypeVar("Record", bound=Drawn)
RecordOut = TypeVar("RecordOut", bound=Drawn, covariant=True)


class Rollout(Protocol[RecordOut]):
    """Samples from the policy and makes units of what it drew."""

    def __call__(
        self, prompts: Sequence[str], *, generator: torch.Generator, number: int
    ) -> tuple[RecordOut | None, Mapping[str, float]]:
        """Units, or ``None`` if none is clear enough, and what was observed.

        Args:
            prompts: what to sample.
            generator: a CPU generator.
            number: how many roll-outs this process made before.
        """


class UnitBuffer(Generic[Record]):
    """Units waiting to be trained on, in the CPU's memory.

    A pass over a roll-out is an order of its units, so several passes hold no copy of the latents.

    Args:
        record: what roll-outs make.
        passes: how often each unit is handed out.
    """

    def __init__(self, record: type[Record], *, passes: int) -> None:
        self.record = record
        self.passes = passes
        self._drawn: Record | None = None
        self._queue: Tensor = torch.zeros(0, dtype=torch.int64)
        """Units in the order in which they are handed out."""

    def __len__(self) -> int:
        """Units that wait, every pass counted."""
        return len(self._queue)

    def prompts(self) -> tuple[str, ...]:
        """Prompts of the waiting units."""
        return () if self._drawn is None else self._drawn.prompts

    def fill(self, drawn: Record, *, generator: torch.Generator) -> None:
        """Appends a roll-out to what is left of the last one; each pass is shuffled by itself."""
        drawn = drawn.with_latents_on("cpu")
        self._drop_finished()
        waiting = 0 if self._drawn is None else self._drawn.units()
        shuffled = [torch.randperm(drawn.units(), generator=generator) + waiting for _ in range(self.passes)]
        self._drawn = drawn if self._drawn is None else self.record.join([self._drawn, drawn])
        self._queue = torch.cat([self._queue, *shuffled])

    def take(self, count: int) -> Record:
        """The next units; there must be as many."""
        assert self._drawn is not None
        units, self._queue = self._queue[:count], self._queue[count:]
        return self._drawn.take(units)

    def _drop_finished(self) -> None:
        """Frees the memory of units that will not be handed out again."""
        if self._drawn is None:
            return
        waiting, self._queue = torch.unique(self._queue, return_inverse=True)
        self._drawn = self._drawn.take(waiting) if len(waiting) else None

    def state(self) -> State:
        """The waiting latents, numbers and prompts, each once."""
        self._drop_finished()
        if self._drawn is None:
            return {}
        drawn: Any = self._drawn
        values = {entry.name: getattr(drawn, entry.name) for entry in fields(drawn)}
        return {**values, "prompts": list(drawn.prompts), "queue": self._queue}

    def restore(self, state: State) -> None:
        """Takes back what :meth:`state` gave."""
        if not state:
            self._drawn, self._queue = None, torch.zeros(0, dtype=torch.int64)
            return
        values = {name: value for name, value in state.items() if name not in ("queue", "prompts")}
        record: Any = self.record
        self._drawn = record(**values, prompts=tuple(state["prompts"]))
        self._queue = state["queue"]

    def take_over(self, states: Sequence[State], *, rank: int, world: int) -> None:
        """Takes every ``world``-th of the units that wait in several processes, from the ``rank``-th on.

        Those that wait longest come first, of each process one in turn. A unit that waits for several passes is dealt
        out as often.

        Args:
            states: of all of those processes, by rank.
            rank: number of this process.
            world: number of processes now.
        """
        drawn: list[Record] = []
        queue: list[tuple[int, int]] = []
        """Place in the queue of its process, and number, of each unit."""
        for state in states:
            self.restore(state)
            if self._drawn is not None:
                before = sum(part.units() for part in drawn)
                queue += [(place, before + unit) for place, unit in enumerate(self._queue.tolist())]
                drawn.append(self._drawn)
        queue.sort(key=lambda entry: entry[0])
        self._drawn = self.record.join(drawn) if drawn else None
        self._queue = torch.tensor([unit for _, unit in queue[rank::world]], dtype=torch.int64)
        self._drop_finished()


class RolloutSource(Generic[Record, BatchOut]):
    """Batches of what the policy makes itself, with a roll-out whenever it runs out.

    A batch holds ``batch_size`` units. A unit is what the roll-out gave one number: a single pair, or a group.

    Args:
        rollout: makes the units.
        record: what it makes them as.
        batch: packs units for the objective, with embedded prompts and on the policy's device.
        prompts: prompts to draw from, shuffled in every epoch.
        embeddings: looks up embedded prompts; batches are on its device.
        prompts_per_rollout: prompts of one roll-out.
        updates_per_rollout: how often each unit is handed out.
        batch_size: units per batch.
        clear_if: key and value that say which units are clear enough, for messages.
        seed: seed of the prompts' order and, with the rank, of the roll-outs.
        rank: number of this process.
        world: number of processes.
    """

    def __init__(
        self,
        rollout: Rollout[Record],
        prompts: Sequence[str],
        embeddings: PromptEmbeddings,
        *,
        record: type[Record],
        batch: Callable[[Record, PromptEmbeddings], BatchOut],
        prompts_per_rollout: int,
        updates_per_rollout: int,
        batch_size: int,
        clear_if: str,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.rollout = rollout
        self.prompts = prompts
        self.embeddings = embeddings
        self.prompts_per_rollout = prompts_per_rollout
        self.batch_size = batch_size
        self.clear_if = clear_if
        self.batch = batch
        self._stream = IndexStream(len(prompts), seed=seed, rank=rank, world=world)
        self._buffer = UnitBuffer(record, passes=updates_per_rollout)
        self._generator = torch.Generator().manual_seed(seed * 1_000_003 + rank + 1)
        self._number = 0
        """Roll-outs so far."""
        self._observed: list[Mapping[str, float]] = []

    def next_batch(self) -> BatchOut:
        """The next units, after as many roll-outs as they need.

        Raises:
            SeedpoError: if many consecutive roll-outs give none.
        """
        empty = 0
        while len(self._buffer) < self.batch_size:
            drawn = self._roll_out()
            empty = 0 if drawn is not None else empty + 1
            if empty == _EMPTY_ROLLOUTS:
                raise SeedpoError(
                    f"{self.clear_if}: {empty} roll-outs in succession gave no preference above it; lower it, or look "
                    "at the samples, which may all be alike"
                )
            if drawn is not None:
                self._buffer.fill(drawn, generator=self._generator)
                self.embeddings.forget_all_but(self._buffer.prompts())
        return self.batch(self._buffer.take(self.batch_size), self.embeddings)

    def rolls_out_within(self, batches: int) -> bool:
        """Whether so many batches need another roll-out."""
        return len(self._buffer) < batches * self.batch_size

    def _roll_out(self) -> Record | None:
        prompts = [self.prompts[row] for row in self._stream.take(self.prompts_per_rollout)]
        drawn, observed = self.rollout(prompts, generator=self._generator, number=self._number)
        self._number += 1
        self._observed.append(observed)
        return drawn

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
        """Position in the prompts, generator, number of roll-outs, waiting units, and what was observed since."""
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

    def take_over(self, earlier: EarlierProcesses, *, seed: int) -> None:
        """Goes on with the prompts that another number of processes left, and with a share of the units that wait."""
        rank, world = self._stream.rank, self._stream.world
        self._stream.take_over(earlier.of("stream").states)
        self._buffer.take_over(earlier.of("buffer").states, rank=rank, world=world)
        self._generator.manual_seed(seed)
        self._number = max(int(state["number"]) for state in earlier.states)
        observed = [dict(rollout) for state in earlier.states for rollout in state["observed"]]
        self._observed = list(observed[rank::world])


def rolled_out_next(earlier: EarlierProcesses) -> bool:
    """Whether the next update of some of the processes, with a :class:`RolloutSource` each, needs another roll-out."""
    needed = earlier.batches * earlier.batch_size
    return any(len(state["buffer"].get("queue", ())) < needed for state in earlier.states)


def preference(first: Tensor, second: Tensor) -> Tensor:
    """Softmax of two scores, the first's share minus the second's, in [-1, 1]; scores broadcast."""
    return torch.tanh((first - second) / 2.0)
