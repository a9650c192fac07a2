"""Pairs whose latents and embedded prompts are looked up in a folder, and computed where they are not there."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch

from seedpo.core.types import Conditioning, ImagePairs
from seedpo.data.cache.digests import digest, pair_digest
from seedpo.data.cache.live import encode_pair, joined, size_ids
from seedpo.data.cache.shards import Entry
from seedpo.data.cache.store import Store
from seedpo.protocols import ContentHashes, Denoiser, LabelledPair, PreferencePairs, Releasable


class StoredPairs:
    """Pairs from two stores; once a whole batch comes from one of them, the model may release what fills it.

    An entry of latents holds all of a pair that training needs, so that its images are not even decoded. Prompts are
    embedded one by one, so that their numbers do not depend on what else is in a batch.

    Args:
        pairs: the labelled images. Where it has :class:`seedpo.protocols.ContentHashes` a stored pair is found without
            decoding its images; else they are decoded once per run and pair.
        model: encodes what is not stored.
        latents: store of latents, both directions; none: encoded at every visit.
        prompts: store of embedded prompts; none: embedded at every visit.
        identity: digest of all settings that latents and prompts depend on, whether they are stored or not.
    """

    def __init__(
        self,
        pairs: PreferencePairs,
        model: Denoiser,
        *,
        latents: Store | None,
        prompts: Store | None,
        identity: str,
    ) -> None:
        self.pairs = pairs
        self.model = model
        self.latents = latents
        self.prompts = prompts
        self.identity = identity
        self._contents: dict[int, bytes] = {}
        self._come_again = not getattr(pairs, "sequential", False)
        self._read: dict[int, LabelledPair] = {}
        self._released: set[str] = set()

    def __len__(self) -> int:
        return len(self.pairs)

    def encode(self, rows: Sequence[int], mirrored: Sequence[bool]) -> ImagePairs:
        """Pairs ready for training; both images of a pair are mirrored left to right where ``mirrored`` says so.

        Raises:
            DataError: if a row that is not stored cannot be read.
        """
        self._start()
        added = self._added()
        entries = [self.entry(row, mirror) for row, mirror in zip(rows, mirrored, strict=True)]
        conditioning = Conditioning.cat(
            [self.conditioning(row, entry) for row, entry in zip(rows, entries, strict=True)]
        ).to(self.model.device)
        self._release(before=added)
        batch = joined(
            [entry["latents"] for entry in entries],
            conditioning,
            chosen_probability=[float(entry["chosen_probability"]) for entry in entries],
            sizes=[entry["sizes"] for entry in entries],
            device=self.model.device,
        )
        contents = [self._identity_of(row, mirror) for row, mirror in zip(rows, mirrored, strict=True)]
        content = torch.frombuffer(bytearray(b"".join(contents)), dtype=torch.uint8).view(len(rows), -1)
        return replace(batch, content=content)

    def fill(self, row: int, mirrored: bool) -> None:
        """Stores what is not stored yet of one pair.

        Raises:
            DataError: if the row cannot be read.
            CacheError: if a store must write and cannot.
        """
        self._start()
        if self.latents is not None or self.prompts is not None:
            self.conditioning(row, self.entry(row, mirrored))

    def entry(self, row: int, mirrored: bool) -> Entry:
        """Latents (2, C, H, W), probability (), sizes (6,) and the prompt's digest (32,) of one pair."""
        key = digest(self._content(row), bytes([mirrored]))
        found = None if self.latents is None else self.latents.get(key)
        if found is not None:
            return found
        pair = self._pair(row)
        if isinstance(self.pairs, ContentHashes):
            # A reader that passes over an unreadable row finds it out now, and names the pair in its place.
            del self._contents[row]
            missed, key = key, digest(self._content(row), bytes([mirrored]))
            found = None if self.latents is None or key == missed else self.latents.get(key)
            if found is not None:
                return found
        made = {
            "latents": encode_pair(pair, self.model, mirrored=mirrored),
            "chosen_probability": torch.tensor(pair.chosen_probability, dtype=torch.float64),
            "sizes": size_ids(pair),
            "prompt": torch.frombuffer(bytearray(_text_digest(pair.prompt)), dtype=torch.uint8),
        }
        if self.latents is not None:
            self.latents.put(key, made)
        return made

    def conditioning(self, row: int, entry: Entry) -> Conditioning:
        """The embedded prompt of one pair, one row."""
        key = bytes(entry["prompt"].tolist())
        found = None if self.prompts is None else self.prompts.get(key)
        if found is None:
            embedded = self.model.encode_prompts([self._pair(row).prompt])
            found = {
                name: value.cpu()
                for name in ("prompt_embeds", "pooled_prompt_embeds", "time_ids")
                if (value := getattr(embedded, name)) is not None
            }
            if self.prompts is not None:
                self.prompts.put(key, found)
        return Conditioning(**found)

    def _start(self) -> None:
        """Forgets what serves one batch only."""
        self._read.clear()
        if not self._come_again:
            self._contents.clear()

    def _pair(self, row: int) -> LabelledPair:
        if row not in self._read:
            self._read[row] = self.pairs[row]
        return self._read[row]

    def _content(self, row: int) -> bytes:
        if row not in self._contents:
            by_reader = isinstance(self.pairs, ContentHashes)
            text = self.pairs.content(row) if isinstance(self.pairs, ContentHashes) else pair_digest(self._pair(row))
            # Hashes of files and hashes of pixels are never taken for one another.
            self._contents[row] = digest(bytes([by_reader]), text.encode())
        return self._contents[row]

    def _identity_of(self, row: int, mirrored: bool) -> bytes:
        return digest(self.identity.encode(), self._content(row), bytes([mirrored]))

    def _added(self) -> dict[Literal["vae", "text_encoder"], int]:
        stores: dict[Literal["vae", "text_encoder"], Store | None] = {"vae": self.latents, "text_encoder": self.prompts}
        return {part: store.added for part, store in stores.items() if store is not None}

    def _release(self, *, before: dict[Literal["vae", "text_encoder"], int]) -> None:
        """Releases the parts that this batch did not need."""
        if not isinstance(self.model, Releasable):
            return
        for part, count in self._added().items():
            if part not in self._released and count == before[part]:
                self._released.add(part)
                self.model.release(part)


def _text_digest(prompt: str) -> bytes:
    return hashlib.sha256(prompt.encode()).digest()
