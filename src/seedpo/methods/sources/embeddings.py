"""Embedded prompts of the roll-outs in use: each prompt embedded once, by itself, and the negative prompt once."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

from seedpo.core.types import Conditioning
from seedpo.protocols import Denoiser

NEGATIVE_PROMPT = ""
"""What classifier-free guidance leads away from."""


class PromptEmbeddings:
    """Looks up embedded prompts, and embeds what it does not know.

    A prompt is embedded by itself, not in a batch, so that its numbers do not depend on what was embedded beside it: a
    resumed run, which embeds again, goes on with the same.

    Args:
        policy: the model whose prompts they are.
    """

    def __init__(self, policy: Denoiser) -> None:
        self.policy = policy
        self._known: dict[str, Conditioning] = {}

    @property
    def device(self) -> torch.device:
        """Where embeddings and latents are expected."""
        return self.policy.device

    def of(self, prompts: Sequence[str]) -> Conditioning:
        """One row per prompt."""
        for prompt in prompts:
            if prompt not in self._known:
                self._known[prompt] = self.policy.encode_prompts([prompt])
        return Conditioning.cat([self._known[prompt] for prompt in prompts])

    def negative(self, count: int) -> Conditioning:
        """The negative prompt, ``count`` rows."""
        return self.of([NEGATIVE_PROMPT]).repeat_interleave(count)

    def forget_all_but(self, prompts: Collection[str]) -> None:
        """Frees the memory of what is not in use."""
        keep = {NEGATIVE_PROMPT, *prompts}
        self._known = {prompt: row for prompt, row in self._known.items() if prompt in keep}
