"""Joint attention of Stable Diffusion 3 in which one zero token stands for many."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import Tensor


class RepeatedPad:
    """An attention processor in which the last token of the text counts as many equal tokens.

    Where a pipeline has no T5 it appends zeros to the text. The text has no positions in Stable Diffusion 3. Equal
    tokens thus stay equal in every block, and n of them weigh as much as one whose logit is larger by log n. One token
    is enough to train for any number of them.

    Attributes:
        log_count: log n of each row, (B,).
    """

    def __init__(self) -> None:
        self.log_count: Tensor | None = None

    def __call__(
        self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor, **_: object
    ) -> tuple[Tensor, Tensor]:
        """Tokens of image (B, N, D) and text (B, L, D) after attention over both."""
        assert self.log_count is not None
        rows, tokens = hidden_states.shape[:2]
        image = (attn.to_q, attn.to_k, attn.to_v)
        text = (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
        query, key, value = (
            torch.cat([own(hidden_states), added(encoder_hidden_states)], 1)
            .view(rows, tokens + encoder_hidden_states.shape[1], attn.heads, -1)
            .transpose(1, 2)
            for own, added in zip(image, text, strict=True)
        )
        mask = query.new_zeros(rows, 1, 1, key.shape[2])
        mask[..., -1] = self.log_count.view(-1, 1, 1)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2)
        image_out, text_out = mixed[:, :tokens], mixed[:, tokens:]
        if not attn.context_pre_only:
            text_out = attn.to_add_out(text_out)
        return attn.to_out[0](image_out), text_out
