"""Pairs from a fixed set of labelled images (Diffusion-DPO), and single images from one of likes (Diffusion-KTO)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar, cast

import torch

from seedpo.core.draws import KeyedDraws
from seedpo.core.types import ImagePairs, Likes
from seedpo.data.images.buckets import buckets_of
from seedpo.data.pairs.fingerprints import fingerprint_of
from seedpo.data.pairs.joined import repeats_of
from seedpo.data.pairs.readers import ExpectingEncoder, look_ahead
from seedpo.data.tables.blocks import blocks_of
from seedpo.methods.settings import MethodConfig
from seedpo.methods.sources.stream import BucketStream, IndexStream
from seedpo.methods.sources.supplies import Supplies
from seedpo.protocols import EarlierProcesses, Fingerprint, LikesEncoder, RowEncoder, State, StatefulPairs

Rows = TypeVar("Rows", ImagePairs, Likes)


@dataclass(frozen=True, kw_only=True)
class VisitDraws:
    """What is drawn for a pair at each of its visits, alike for its two images.

    Attributes:
        mirror: tosses the coin that says whether the images are mirrored left to right; ``None``: they never are.
        prompt: draws whether the prompt is left out; ``None``: it never is.
        empty_prompts: share of the visits at which it is, 0 to 1.
        latents: draws latents from the distribution that the encoder gives; ``None``: it gives the latents.
    """

    mirror: KeyedDraws | None = None
    prompt: KeyedDraws | None = None
    empty_prompts: float = 0.0
    latents: KeyedDraws | None = None

    def batch(self, encoder: RowEncoder[Rows], visits: Sequence[tuple[int, int]]) -> Rows:
        """Pairs or likes as they are at some visits.

        Args:
            encoder: the set.
            visits: number of each row, and how often it was handed out before.

        Raises:
            DataError: if a pair cannot be read.
        """
        rows = [row for row, _ in visits]
        batch: Rows = replace(
            encoder.encode(rows, self.mirrored(visits), self._emptied(visits)),
            pair=torch.tensor(rows, dtype=torch.int64),
            visit=torch.tensor([visit for _, visit in visits], dtype=torch.int64),
        )
        return batch if self.latents is None else drawn_latents(batch, self.latents)

    def mirrored(self, visits: Sequence[tuple[int, int]]) -> list[bool]:
        """Whether the images of pairs are mirrored at some visits."""
        return [self.mirror is not None and self.mirror.coin(row, visit) for row, visit in visits]

    def _emptied(self, visits: Sequence[tuple[int, int]]) -> list[bool]:
        if self.prompt is None:
            return []
        return [self.prompt.uniform(row, visit) < self.empty_prompts for row, visit in visits]


def visit_draws(config: MethodConfig, draws: KeyedDraws | None) -> VisitDraws:
    """What a run draws for its pairs; ``draws`` are those that runs share, ``None``: each has its own."""
    keyed = draws or KeyedDraws(seed=config.seed)
    return VisitDraws(
        mirror=keyed if config.pairs.flip or config.fidelity.independent_flips else None,
        prompt=keyed if config.pairs.empty_prompts else None,
        empty_prompts=config.pairs.empty_prompts,
        latents=KeyedDraws(seed=config.seed) if config.fidelity.sampled_latents else None,
    )


def drawn_latents(rows: Rows, draws: KeyedDraws) -> Rows:
    """Latents mean + std noise of numbered pairs or likes, whose noise follows from number and visit.

    Raises:
        ValueError: if they have no distribution, or no numbers.
    """
    if rows.stds is None or rows.pair is None or rows.visit is None:
        raise ValueError("to draw latents, pairs need their distribution, their numbers and their visits")
    noise = draws.latent_noise(rows.pair, rows.visit, shape=rows.stds.shape[1:]).to(rows.stds)
    return rows.moved(rows.stds * noise)


class OfflinePairs(Generic[Rows]):
    """Endless batches of a set of pairs or of likes, shuffled in every epoch and dealt out among processes.

    Each batch says which pairs it holds and how often each was handed out before (``pair`` and ``visit``, on the CPU).

    Args:
        pairs: the set, encoded.
        batch_size: pairs per batch.
        seed: seed of the shuffles.
        draws: what is drawn at each visit of a pair.
        mirror_rejected: tosses another coin for the rejected image alone, as the official code does.
        rank: number of this process.
        world: number of processes.
        reader: what the encoded pairs are read from, if it observes something: its state is kept with the position, and
            one that is sequential is not shuffled. It may say how often each pair comes in an epoch, and of
            which bucket it is: a batch then holds pairs of one bucket.
        ahead: pairs after each batch that the encoder is told of beforehand.
    """

    def __init__(
        self,
        pairs: RowEncoder[Rows],
        *,
        batch_size: int,
        seed: int,
        draws: VisitDraws = VisitDraws(),
        mirror_rejected: KeyedDraws | None = None,
        rank: int = 0,
        world: int = 1,
        reader: StatefulPairs | None = None,
        ahead: int = 0,
    ) -> None:
        self.pairs: RowEncoder[Rows] = pairs
        self.batch_size = batch_size
        self.ahead = ahead
        self.draws = draws
        self.mirror_rejected = mirror_rejected
        self.reader = reader
        self._is_stream = reader is not None and reader.sequential
        repeats, buckets, blocks = repeats_of(reader), buckets_of(reader), blocks_of(reader)
        self._stream: IndexStream | BucketStream
        if buckets is None:
            self._stream = IndexStream(
                len(pairs),
                seed=seed,
                rank=rank,
                world=world,
                shuffle=not self._is_stream,
                repeats=repeats,
                blocks=blocks,
            )
        else:
            self._stream = BucketStream(
                buckets, batch_size=batch_size, seed=seed, rank=rank, world=world, repeats=repeats, blocks=blocks
            )

    def next_batch(self) -> Rows:
        """The next pairs as latents.

        Raises:
            DataError: if a pair cannot be read.
        """
        if self.ahead and isinstance(self.pairs, ExpectingEncoder):
            coming = self._stream.coming(self.batch_size + self.ahead)
            self.pairs.expect([row for row, _ in coming], self.draws.mirrored(coming))
        taken = self._stream.take_with_visits(self.batch_size)
        batch: Rows = self.draws.batch(self.pairs, taken)
        if self.mirror_rejected is None:
            return batch
        apart: Any = replace(self.draws, mirror=self.mirror_rejected, prompt=None).batch(self.pairs, taken)
        # What a batch says of its content holds where both images are mirrored together.
        return cast("Rows", replace(cast("Any", batch), rejected_latents=apart.rejected_latents, content=None))

    def fingerprints(self) -> Mapping[str, Fingerprint]:
        """That of the set, as far as it can be told from others."""
        return {} if self.reader is None else {"data": fingerprint_of(self.reader)}

    def metrics(self) -> Mapping[str, float]:
        """How often each pair was handed out so far (``visits``; not of a stream), and what the reader observed."""
        observed = {} if self.reader is None else self.reader.metrics()
        return observed if self._is_stream else {"visits": self._stream.visits, **observed}

    def state(self) -> State:
        """The position in the set, from which the visits follow, and what the reader observed."""
        return self._stream.state() | ({} if self.reader is None else {"reader": self.reader.state()})

    def restore(self, state: State) -> None:
        """Goes back to a position."""
        self._stream.restore(state)
        if self.reader is not None and "reader" in state:
            self.reader.restore(state["reader"])

    def take_over(self, earlier: EarlierProcesses, *, seed: int) -> None:
        """Goes on with the pairs of this epoch that another number of processes left; what is drawn follows from them.

        All of those processes took equally many.
        """
        if isinstance(self._stream, BucketStream):
            self._stream.take_over(earlier.states, batch_size=earlier.batch_size)
        else:
            self._stream.take_over(earlier.states)
        observed = [state["reader"] for state in earlier.states if "reader" in state]
        if self.reader is not None and observed:
            self.reader.take_over(observed)


@dataclass(frozen=True)
class EncodedLikes:
    """A set of likes, encoded: a :class:`seedpo.protocols.RowEncoder` of single images."""

    likes: LikesEncoder

    def __len__(self) -> int:
        return len(self.likes)

    def encode(self, rows: Sequence[int], mirrored: Sequence[bool], emptied: Sequence[bool] = ()) -> Likes:
        """Single images ready for training."""
        return self.likes.encode_likes(rows, mirrored, emptied)

    def expect(self, rows: Sequence[int], mirrored: Sequence[bool]) -> None:
        """Says which images are asked for next."""
        if isinstance(self.likes, ExpectingEncoder):
            self.likes.expect(rows, mirrored)


def build_source(config: MethodConfig, supplies: Supplies) -> OfflinePairs[ImagePairs]:
    """The source of labelled pairs for one process of a run."""
    reader, encoded = supplies.pairs()
    mirror_rejected = KeyedDraws(seed=config.seed + 1) if config.fidelity.independent_flips else None
    return _source(encoded, config, supplies, reader, mirror_rejected)


def build_likes(config: MethodConfig, supplies: Supplies) -> OfflinePairs[Likes]:
    """The source of single images that are liked or not, for one process of a run."""
    reader, encoded = supplies.likes()
    return _source(EncodedLikes(encoded), config, supplies, reader)


def _source(
    encoded: RowEncoder[Rows],
    config: MethodConfig,
    supplies: Supplies,
    reader: StatefulPairs,
    mirror_rejected: KeyedDraws | None = None,
) -> OfflinePairs[Rows]:
    return OfflinePairs(
        encoded,
        batch_size=config.batch_size,
        seed=config.seed,
        draws=visit_draws(config, supplies.draws),
        mirror_rejected=mirror_rejected,
        rank=supplies.rank,
        world=supplies.world,
        reader=reader,
        ahead=look_ahead(config.pairs.readers, batch_size=config.batch_size),
    )
