"""Reader processes: pairs are decoded and resized ahead of the training that asks for them.

This process reads the stored pairs, in the order in which they are asked for, and hands their bytes or paths to the
readers. So every kind of set can be read ahead, streams too, and neither order, nor numbers, nor what is skipped, nor
the state depends on how many readers there are. A reader imports no torch. PyTorch's ``DataLoader`` was not taken: its
workers open the set once more each, and the torch that they import takes more memory than what they decode.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from seedpo.data.pairs.sets import StoredPair, content_hash, fitted, open_pair
from seedpo.data.pairs.views import PairsView
from seedpo.data.settings import PairsConfig
from seedpo.errors import DataError, SeedpoError, StreamError
from seedpo.protocols import LabelledPair, PreferencePairs

logger = logging.getLogger(__name__)


class StoredPairs(PreferencePairs, Protocol):
    """Labelled pairs that can be had as they are stored."""

    config: PairsConfig
    """How they become one size."""

    def stored(self, row: int) -> StoredPair:
        """One pair as it is stored.

        Raises:
            DataError: if it cannot be read.
        """

    def size(self) -> tuple[int, int] | None:
        """Width and height that all images must have where no resolution is configured."""


@runtime_checkable
class ExpectingPairs(Protocol):
    """Pairs that want to know what is asked for next."""

    def expect(self, rows: Sequence[int]) -> None:
        """Says which pairs are asked for next, in their order."""


@runtime_checkable
class ExpectingEncoder(Protocol):
    """A :class:`seedpo.protocols.PairEncoder` that wants to know what is asked for next."""

    def expect(self, rows: Sequence[int], mirrored: Sequence[bool]) -> None:
        """Says which pairs are asked for next, in their order, and whether their images are mirrored."""


def expect(pairs: object, rows: Sequence[int]) -> None:
    """Says which pairs are asked for next, where that matters."""
    if isinstance(pairs, ExpectingPairs):
        pairs.expect(rows)


def look_ahead(readers: int, *, batch_size: int) -> int:
    """Pairs after a batch that are read while it is trained on: the next batch, and two for each reader."""
    return max(batch_size, 2 * readers) if readers else 0


@dataclass(frozen=True, kw_only=True)
class PixelPair:
    """A :class:`seedpo.protocols.LabelledPair` without torch: images (H, W, 3) uint8."""

    prompt: str
    images: tuple[NDArray[np.uint8], ...]
    probability: float
    original_size: tuple[int, int]
    crop: tuple[int, int]

    def labelled(self) -> LabelledPair:
        """The pair as tensors."""
        from seedpo.data.images.pixels import to_tensor  # imports torch, which a reader does not need

        images = [to_tensor(image) for image in self.images]
        return LabelledPair(
            prompt=self.prompt,
            chosen=images[0],
            rejected=images[1] if len(images) > 1 else None,
            chosen_probability=self.probability,
            original_size=self.original_size,
            crop=self.crop,
        )


def pixel_pair(stored: StoredPair, config: PairsConfig, size: tuple[int, int] | None) -> PixelPair:
    """Decodes a pair and brings it to the size that is trained on.

    Raises:
        DataError: if it cannot be read.
    """
    pair = open_pair(stored)
    images, crop = fitted(pair, config, size=size)
    return PixelPair(
        prompt=pair.prompt,
        images=tuple(np.asarray(image) for image in images),
        probability=pair.probability,
        original_size=(pair.images[0].height, pair.images[0].width),
        crop=crop,
    )


class Readers:
    """Processes that decode pairs; they start when they are needed, and end with this process whatever ends it.

    Args:
        number: of processes, 1 or more.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        context = get_context("spawn")  # a fork would inherit torch's threads, and a GPU
        ours, theirs = context.Pipe(duplex=False)
        self._pool = ProcessPoolExecutor(number, mp_context=context, initializer=_begin, initargs=(ours,))
        self._is_broken = False
        self._close = weakref.finalize(self, _end, self._pool, theirs)

    def submit(self, stored: StoredPair, config: PairsConfig, size: tuple[int, int] | None) -> Future[PixelPair] | None:
        """Has a pair decoded; ``None`` once a reader was killed."""
        if self._is_broken:
            return None
        try:
            with _without_interrupts():
                return self._pool.submit(pixel_pair, stored, config, size)
        except (BrokenProcessPool, OSError):  # OSError: a reader is to start while the pool falls apart
            self._give_up()
            return None

    def result(self, future: Future[PixelPair]) -> PixelPair | None:
        """A pair once it is decoded; ``None`` if a reader was killed meanwhile.

        Raises:
            DataError: if it cannot be read.
        """
        try:
            return future.result()
        except BrokenProcessPool:
            self._give_up()
            return None

    def _give_up(self) -> None:
        if not self._is_broken:
            logger.warning(
                "one of pairs.readers = %d reader processes was killed or could not start, perhaps because memory ran "
                "out: from here on this process reads its pairs itself, which is slower; set pairs.readers to fewer",
                self.number,
            )
        self._is_broken = True

    def close(self) -> None:
        """Ends the processes."""
        self._close()


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Processes that start inside never see a Ctrl-C: the one that they read for may want to end a step first."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(lifeline: Connection) -> None:
    """What a reader does first."""
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()


def _end_with(lifeline: Connection) -> None:
    """Ends this process when nobody is left at the other end of a pipe."""
    try:
        lifeline.recv_bytes()
    finally:
        os._exit(0)


def _end(pool: ProcessPoolExecutor, lifeline: Connection) -> None:
    pool.shutdown(wait=False, cancel_futures=True)
    lifeline.close()


class PairsAhead(PairsView):
    """Labelled pairs of which the next ones are decoded by other processes.

    Those that were announced with :meth:`expect` are kept until others are; any other pair is read here.

    Args:
        pairs: the labelled pairs.
        readers: number of processes, 1 or more.
    """

    def __init__(self, pairs: StoredPairs, *, readers: int) -> None:
        super().__init__(pairs)
        self.pairs: StoredPairs = pairs
        self.readers = Readers(readers)
        self._stored: dict[int, StoredPair | SeedpoError] = {}
        """What is expected, or why it cannot be read."""
        self._pixels: dict[int, Future[PixelPair]] = {}

    def expect(self, rows: Sequence[int]) -> None:
        """Has pairs decoded, and forgets all that are not among them."""
        for row in self._stored.keys() - set(rows):
            del self._stored[row]
            if row in self._pixels:
                self._pixels.pop(row).cancel()
        for row in rows:
            if any(isinstance(kept, StreamError) for kept in self._stored.values()):
                return  # of a stream that broke off nothing more comes
            if row in self._stored:
                continue
            try:
                stored = self.pairs.stored(row)
            except (DataError, StreamError) as error:  # whoever asks for the row meets it
                self._stored[row] = error
            else:
                self._stored[row] = stored
                if future := self.readers.submit(stored, self.pairs.config, self._size()):
                    self._pixels[row] = future

    def stored(self, row: int) -> StoredPair:
        """One pair as it is stored.

        Raises:
            DataError: if it cannot be read.
            StreamError: if the stream breaks off or holds no pair.
        """
        kept = self._stored.get(row)
        if isinstance(kept, SeedpoError):
            raise kept
        return self.pairs.stored(row) if kept is None else kept

    def __getitem__(self, row: int) -> LabelledPair:
        """One pair.

        Raises:
            DataError: if it cannot be read.
            StreamError: if the stream breaks off.
        """
        if row not in self._stored:
            return self.pairs[row]
        pixels = self.readers.result(self._pixels[row]) if row in self._pixels else None
        return (pixels or pixel_pair(self.stored(row), self.pairs.config, self._size())).labelled()

    def _size(self) -> tuple[int, int] | None:
        return self.pairs.size() if self.pairs.config.resolution is None else None

    def prompt(self, row: int) -> str:
        """What both images of a pair were made for."""
        return self.stored(row).prompt if row in self._stored else self.pairs.prompt(row)

    def content(self, row: int) -> str:
        """SHA-256 of all that a pair depends on."""
        return content_hash(self.stored(row), self.pairs.config) if row in self._stored else self.pairs.content(row)


def pairs_ahead(pairs: StoredPairs, *, readers: int) -> PreferencePairs:
    """A set of pairs that ``readers`` processes read ahead; the set itself if there are none."""
    return PairsAhead(pairs, readers=readers) if readers else pairs
