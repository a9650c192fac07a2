"""Pairs as latents and embedded prompts: from memory, from the stores of a cache folder, or encoded now."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from seedpo.core.types import Conditioning, ImagePairs, Likes
from seedpo.data.cache.digests import digest
from seedpo.data.cache.entries import Entry
from seedpo.data.cache.store import Store
from seedpo.data.pairs.readers import expect
from seedpo.errors import DataError
from seedpo.protocols import Denoiser, DistributionEncoder, LabelledPair, PreferencePairs, Releasable

logger = logging.getLogger(__name__)

MEMORY = 8 * 2**30
"""Bytes of latents that one process keeps in memory; further pairs are encoded at every visit."""

Part = Literal["vae", "text_encoder"]


@torch.no_grad()
def encode_pair(pair: LabelledPair, model: Denoiser, *, mirrored: bool, spread: bool = False) -> Entry:
    """``latents`` of the K images, (K, ...), on the CPU; with ``spread`` also their standard deviations, ``stds``.

    Each pair is encoded alone, so that its latents do not depend on the rest of a batch.

    Raises:
        DataError: if the model's autoencoder gives no distribution.
    """
    images = torch.stack(pair.images)
    images = images.flip(-1) if mirrored else images
    if not spread:
        return {"latents": model.encode_images(images).cpu()}
    if not isinstance(model, DistributionEncoder):
        raise DataError("this model encodes images without a distribution; set fidelity.sampled_latents to false")
    mean, std = model.encode_distribution(images)
    return {"latents": mean.cpu(), "stds": std.cpu()}


def size_ids(pair: LabelledPair) -> Tensor:
    """Sizes for SDXL's conditioning in diffusers' order, (6,) float32: original, crop (above, left), target."""
    return torch.tensor([*pair.original_size, *pair.crop, *pair.chosen.shape[-2:]], dtype=torch.float32)


class EncodedPairs:
    """A set of labelled pairs, seen as latents and embedded prompts.

    Latents that no store has are kept in memory, except those of a stream, whose pairs do not come again. Prompts that
    no store has are embedded at every visit: a whole batch in one call without a store, else one by one, so that an
    embedding does not depend on the rest of a batch. A model's part is released after the first batch that the stores
    served whole.

    Args:
        pairs: the labelled images.
        model: encodes images and prompts.
        latents: store of latents, both directions; `None` if there is none.
        prompts: store of embedded prompts; `None` if there is none.
        identity: digest of the settings on which latents and prompts depend; batches then say what they were made from
            (``content``). `None`: they do not.
        memory: bytes of latents that are kept in memory.
        spread: whether the standard deviations of the latents are encoded and stored, too.
    """

    def __init__(
        self,
        pairs: PreferencePairs,
        model: Denoiser,
        *,
        latents: Store | None = None,
        prompts: Store | None = None,
        identity: str | None = None,
        memory: int = MEMORY,
        spread: bool = False,
    ) -> None:
        self.pairs = pairs
        self.model = model
        self.latents = latents
        self.prompts = prompts
        self.identity = identity
        self.spread = spread
        self._free = 0 if pairs.sequential else memory
        self._in_memory: dict[tuple[int, bool], Entry] = {}
        self._texts: dict[int, str] = {}
        """Prompts of the rows that were read."""
        self._contents: dict[int, bytes] = {}
        self._used: set[Part] = set()
        self._released: set[Part] = set()

    def __len__(self) -> int:
        return len(self.pairs)

    def encode(self, rows: Sequence[int], mirrored: Sequence[bool], emptied: Sequence[bool] = ()) -> ImagePairs:
        """Pairs ready for training.

        Args:
            rows: their numbers.
            mirrored: whether both images of each are mirrored left to right.
            emptied: whether each has the empty prompt in place of its own; of no length: none has.

        Raises:
            DataError: if a row that must be encoded cannot be read.
        """
        emptied = emptied or [False] * len(rows)
        entries, conditioning = self._encoded(rows, mirrored, emptied)
        latents = self._stacked("latents", entries)
        return ImagePairs(
            chosen_latents=latents[:, 0],
            rejected_latents=latents[:, 1],
            conditioning=conditioning,
            chosen_probability=self._stacked("chosen_probability", entries, torch.float32),
            stds=self._stacked("stds", entries) if self.spread else None,
            gap=torch.stack([entry["gap"] for entry in entries]) if "gap" in entries[0] else None,
            content=None if self.identity is None else self._contents_of(rows, mirrored, emptied, self.identity),
        )

    def encode_likes(self, rows: Sequence[int], mirrored: Sequence[bool], emptied: Sequence[bool] = ()) -> Likes:
        """Single images ready for training, of a set of likes; see :meth:`encode`."""
        entries, conditioning = self._encoded(rows, mirrored, emptied or [False] * len(rows))
        return Likes(
            latents=self._stacked("latents", entries)[:, 0],
            conditioning=conditioning,
            liked=self._stacked("chosen_probability", entries, torch.float32) > 0.5,
            stds=self._stacked("stds", entries)[:, 0] if self.spread else None,
        )

    def _encoded(
        self, rows: Sequence[int], mirrored: Sequence[bool], emptied: Sequence[bool]
    ) -> tuple[list[Entry], Conditioning]:
        self._begin()
        entries = [self._entry(row, flipped) for row, flipped in zip(rows, mirrored, strict=True)]
        conditioning = self._conditioning(rows, entries, emptied).to(self.model.device)
        self._release_unused()
        return entries, conditioning.with_sizes(torch.stack([entry["sizes"] for entry in entries]))

    def _stacked(self, name: str, entries: Sequence[Entry], dtype: torch.dtype | None = None) -> Tensor:
        return torch.stack([entry[name] for entry in entries]).to(self.model.device, dtype)

    def expect(self, rows: Sequence[int], mirrored: Sequence[bool]) -> None:
        """Says which pairs are encoded next: they can be read ahead, unless their latents are known or may be."""
        if self.latents is None:
            visits = zip(rows, mirrored, strict=True)
            expect(self.pairs, [row for row, flipped in visits if (row, flipped) not in self._in_memory])

    def fill(self, row: int, mirrored: bool) -> None:
        """Puts into the stores what they lack of one pair.

        Raises:
            DataError: if the row cannot be read.
            CacheError: if a store cannot be written.
        """
        self._begin()
        entry = self._entry(row, mirrored)
        if self.latents is not None:
            self.latents.put(self._key(row, mirrored), entry)
        if self.prompts is not None and _prompt_key(entry) not in self.prompts:
            self.prompts.put(_prompt_key(entry), self._embedded([self._text(row)]).to("cpu").tensors())

    def fill_empty_prompt(self) -> None:
        """Puts the embedded empty prompt into the store, unless it is there.

        Raises:
            CacheError: if the store cannot be written.
        """
        if self.prompts is not None and _EMPTY not in self.prompts:
            self.prompts.put(_EMPTY, self._embedded([""]).to("cpu").tensors())

    def _begin(self) -> None:
        """Starts a batch."""
        self._used.clear()
        if self.pairs.sequential:
            self._contents.clear()
            self._texts.clear()

    def _entry(self, row: int, mirrored: bool) -> Entry:
        """Latents (K, ...), probability (), sizes (6,) and the prompt's digest (32,) of one pair, on the CPU.

        Pairs that were scored also have a gap (); what scored them is part of their content.
        """
        if (row, mirrored) in self._in_memory:
            return self._in_memory[row, mirrored]
        if (entry := self._stored(row, mirrored)) is not None:
            return entry
        pair = self.pairs[row]
        self._texts[row] = pair.prompt
        # Now that the row was read, another pair may stand in its place, which has another content.
        self._contents.pop(row, None)
        if (entry := self._stored(row, mirrored)) is not None:
            return entry
        self._used.add("vae")
        entry = {
            **encode_pair(pair, self.model, mirrored=mirrored, spread=self.spread),
            "chosen_probability": torch.tensor(pair.chosen_probability, dtype=torch.float64),
            "sizes": size_ids(pair),
            "prompt": torch.frombuffer(bytearray(hashlib.sha256(pair.prompt.encode()).digest()), dtype=torch.uint8),
        }
        if pair.gap is not None:
            entry["gap"] = torch.tensor(pair.gap, dtype=torch.float64)
        self._remember(row, mirrored, entry)
        return entry

    def _stored(self, row: int, mirrored: bool) -> Entry | None:
        return None if self.latents is None else self.latents.get(self._key(row, mirrored))

    def _remember(self, row: int, mirrored: bool, entry: Entry) -> None:
        if self._free <= 0:
            return
        self._in_memory[row, mirrored] = entry
        self._free -= entry["latents"].nbytes * (2 if self.spread else 1)
        if self._free <= 0:
            logger.warning(
                "latents fill the memory that is set aside for them; further pairs are encoded at every visit: fill a "
                "cache.folder with `seedpo cache build`"
            )

    def _conditioning(self, rows: Sequence[int], entries: Sequence[Entry], emptied: Sequence[bool]) -> Conditioning:
        if self.prompts is None:
            return self._embedded(["" if empty else self._text(row) for row, empty in zip(rows, emptied, strict=True)])
        parts = []
        for row, entry, empty in zip(rows, entries, emptied, strict=True):
            tensors = self.prompts.get(_EMPTY if empty else _prompt_key(entry))
            if tensors is None:
                tensors = self._embedded(["" if empty else self._text(row)]).to("cpu").tensors()
            parts.append(self.model.conditioning_type(**tensors))
        return Conditioning.cat(parts)

    def _embedded(self, prompts: Sequence[str]) -> Conditioning:
        self._used.add("text_encoder")
        return self.model.encode_prompts(prompts)

    def _text(self, row: int) -> str:
        return self._texts[row] if row in self._texts else self.pairs.prompt(row)

    def _key(self, row: int, mirrored: bool) -> bytes:
        return digest(self._content(row), bytes([mirrored]))

    def _content(self, row: int) -> bytes:
        if row not in self._contents:
            self._contents[row] = digest(self.pairs.content(row).encode())
        return self._contents[row]

    def _contents_of(
        self, rows: Sequence[int], mirrored: Sequence[bool], emptied: Sequence[bool], identity: str
    ) -> Tensor:
        digests = [
            digest(identity.encode(), self._content(row), bytes([flipped, empty]))
            for row, flipped, empty in zip(rows, mirrored, emptied, strict=True)
        ]
        return torch.frombuffer(bytearray(b"".join(digests)), dtype=torch.uint8).view(len(rows), -1)

    def _release_unused(self) -> None:
        """Releases the parts that this batch did not use, since the stores know them."""
        stores: Mapping[Part, Store | None] = {"vae": self.latents, "text_encoder": self.prompts}
        for part, store in stores.items():
            if store is None or part in self._used or part in self._released:
                continue
            if isinstance(self.model, Releasable):
                self._released.add(part)
                self.model.release(part)


_EMPTY = hashlib.sha256(b"").digest()
"""Key of the empty prompt."""


def _prompt_key(entry: Entry) -> bytes:
    return bytes(entry["prompt"].tolist())
