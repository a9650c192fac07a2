"""Prompts as a preference model embeds them, each embedded once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class TextEmbeddings:
    """Text embeddings, each prompt embedded once, by itself.

    In a batch they would round differently with what else is in it, so that a resumed run, which embeds anew, would not
    go on with the same scores.

    Args:
        embed: the embedding (D,) of a prompt.
    """

    def __init__(self, embed: Callable[[str], Tensor]) -> None:
        self._embed = embed
        self._known: dict[str, Tensor] = {}

    def of(self, prompts: Sequence[str]) -> Tensor:
        """Embeddings (B, D) of B prompts."""
        for prompt in prompts:
            if prompt not in self._known:
                self._known[prompt] = self._embed(prompt)
        return torch.stack([self._known[prompt] for prompt in prompts])

    def clear(self) -> None:
        """Forgets all, as when the model has moved to another device."""
        self._known.clear()
