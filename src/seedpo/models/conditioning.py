"""What Stable Diffusion models are told of the images they draw."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from seedpo.core.types import Conditioning


@dataclass(frozen=True, kw_only=True)
class TextConditioning(Conditioning):
    """Embedded prompts and, for SDXL, image sizes.

    Attributes:
        prompt_embeds: one embedded prompt per row, (B, L, D).
        pooled_prompt_embeds: pooled embedding for models that take one (SDXL), (B, P).
        time_ids: size and crop in pixels for models that take them (SDXL), (B, 6).
    """

    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor | None = None
    time_ids: Tensor | None = None

    @property
    def sizes(self) -> Tensor | None:
        """``time_ids``."""
        return self.time_ids

    def with_sizes(self, sizes: Tensor | None) -> TextConditioning:
        """The same with other ``time_ids``, where the model takes them."""
        if self.time_ids is None or sizes is None:
            return self
        return replace(self, time_ids=sizes.to(self.time_ids))
