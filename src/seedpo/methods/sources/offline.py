"""Pairs from a fixed set of labelled images (Diffusion-DPO)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from seedpo.core.draws import KeyedDraws
from seedpo.core.types import ImagePairs
from seedpo.data.fingerprints import fingerprint_of
from seedpo.methods.settings import MethodConfig
from seedpo.methods.sources.stream import IndexStream
from seedpo.methods.sources.supplies import Supplies
from seedpo.protocols import Fingerprint, PairEncoder, State, StatefulPairs


class OfflinePairs:
    """Endless batches of a pair set, shuffled in every epoch and dealt out among processes.

    Each batch says which pairs it holds and how often each was handed out before (``pair`` and ``visit``, on the CPU).

    Args:
        pairs: the set, encoded.
        batch_size: pairs per batch.
        seed: seed of the shuffles.
        mirror: tosses a coin at each visit of a pair, the same for its two images, that says whether they are mirrored
            left to right; ``None``: never.
        mirror_rejected: tosses another coin for the rejected image alone, as a script of diffusers does.
        rank: number of this process.
        world: number of processes.
        reader: what the encoded pairs are read from, if it observes something: its state is kept with the position, and
            one that is sequential is not shuffled.
    """

    def __init__(
        self,
        pairs: PairEncoder,
        *,
        batch_size: int,
        seed: int,
        mirror: KeyedDraws | None = None,
        mirror_rejected: KeyedDraws | None = None,
        rank: int = 0,
        world: int = 1,
        reader: StatefulPairs | None = None,
    ) -> None:
        self.pairs = pairs
        self.batch_size = batch_size
        self.mirror = mirror
        self.mirror_rejected = mirror_rejected
        self.reader = reader
        shuffle = reader is None or not reader.sequential
        self._stream = IndexStream(len(pairs), seed=seed, rank=rank, world=world, shuffle=shuffle)

    def next_batch(self) -> ImagePairs:
        """The next pairs as latents.

        Raises:
            DataError: if a pair cannot be read.
        """
        taken = self._stream.take_with_visits(self.batch_size)
        rows = [row for row, _ in taken]
        mirrored = [self.mirror is not None and self.mirror.coin(row, visit) for row, visit in taken]
        encoded = self.pairs.encode(rows, mirrored)
        if self.mirror_rejected is not None:
            apart = self.pairs.encode(rows, [self.mirror_rejected.coin(row, visit) for row, visit in taken])
            # What a batch says of its content holds where both images are mirrored together.
            encoded = replace(encoded, rejected_latents=apart.rejected_latents, content=None)
        return replace(
            encoded,
            pair=torch.tensor(rows, dtype=torch.int64),
            visit=torch.tensor([visit for _, visit in taken], dtype=torch.int64),
        )

    def fingerprints(self) -> Mapping[str, Fingerprint]:
        """That of the set, as far as it can be told from others."""
        return {} if self.reader is None else {"data": fingerprint_of(self.reader)}

    def metrics(self) -> Mapping[str, float]:
        """What the reader observed so far."""
        return {} if self.reader is None else self.reader.metrics()

    def state(self) -> State:
        """The position in the set, from which the visits follow, and what the reader observed."""
        return self._stream.state() | ({} if self.reader is None else {"reader": self.reader.state()})

    def restore(self, state: State) -> None:
        """Goes back to a position."""
        self._stream.restore(state)
        if self.reader is not None and "reader" in state:
            self.reader.restore(state["reader"])


def build_source(config: MethodConfig, supplies: Supplies) -> OfflinePairs:
    """Diffusion-DPO's source of pairs for one process of a run."""
    reader, encoded = supplies.pairs()
    apart = config.fidelity.independent_flips
    mirror = supplies.draws or KeyedDraws(seed=config.seed)
    return OfflinePairs(
        encoded,
        batch_size=config.batch_size,
        seed=config.seed,
        mirror=mirror if config.pairs.flip or apart else None,
        mirror_rejected=KeyedDraws(seed=config.seed + 1) if apart else None,
        rank=supplies.rank,
        world=supplies.world,
        reader=reader,
    )
