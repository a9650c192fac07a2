"""DiNa-LRM's network (arXiv 2602.11146): the first blocks of Stable Diffusion 3.5's transformer, and a head of queries.

Tokens of image and text after some blocks are modulated by the embedded time and projected side by side,

    z = A [.., P_i ((1 + a_i(e)) h_i + b_i(e) + l_i), ..],        e = embedding of level and pooled prompt

once for the image and once for the text. A few learned queries attend to both, then to the image again. A residual
network follows, and each query gives one number; the score is their mean.

Training compares both images of a prompt with the same noise of a level sigma, uniform in [0, 1], by Thurstone's model:

    P(a over b) = Phi((s_a - s_b) / sqrt(2 (2 sigma^2 + 0.05)))

The head predicts no variance: the calibration by the level is this constant. The names of parts are those of the
published file. :mod:`seedpo.rewards.dina_lrm` reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from seedpo.core.sampling import draw_noise
from seedpo.core.transitions import over_latents
from seedpo.core.types import TensorRows
from seedpo.models.pipelines.stable_diffusion_3 import STABLE_DIFFUSION_3, Sd3Tokens

CLEAN_LEVEL = 0.4
"""Level of the noise that clean latents are given before they are scored, as in both of the authors' examples."""

NOISE_SEED = 0
"""Of that noise, which all images of a size share, as both images of a pair do in training."""


@dataclass(frozen=True, kw_only=True)
class HeadForm:
    """What a checkpoint's configuration says of blocks and head.

    Attributes:
        blocks: of the transformer that are kept.
        image_blocks: numbers of those whose image tokens are read, from 1; 0 is the patches before the first.
        text_blocks: the same for text tokens.
        width: of the head; ``None``: the transformer's.
        queries: number of learned queries.
        heads: of their attention.
        projected: whether tokens are projected before they are modulated, although the widths are equal.
    """

    blocks: int
    image_blocks: tuple[int, ...]
    text_blocks: tuple[int, ...]
    width: int | None = None
    queries: int = 4
    heads: int = 8
    projected: bool = False


class TokenAdapter(nn.Module):
    """Tokens of one block, modulated by the embedded time, and projected."""

    def __init__(self, tokens: int, time: int, width: int, *, projected: bool) -> None:
        super().__init__()
        self.proj_in = nn.Linear(tokens, width) if projected or tokens != width else nn.Identity()
        self.layer_embed = nn.Parameter(torch.zeros(1, 1, width))
        self.cond_mlp = nn.Sequential(nn.Linear(time, 2 * width), nn.SiLU(), nn.Linear(2 * width, 2 * width))
        self.proj = nn.Linear(width, width // 4)

    def forward(self, tokens: Tensor, time: Tensor) -> Tensor:
        """(B, N, width / 4) from tokens (B, N, C) and the embedded time (B, E)."""
        scale, shift = self.cond_mlp(time).unsqueeze(1).chunk(2, -1)
        projected: Tensor = self.proj(self.proj_in(tokens) * (1 + scale) + shift + self.layer_embed)
        return projected


def _gate(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1))


class QueryAttention(nn.Module):
    """Queries attend to tokens of the image, apart from that to those of the text, and add both to themselves.

    Args:
        width: of all tokens.
        heads: of both attentions.
        reads_text: whether there are text tokens, and a gate for the values of every token.
    """

    def __init__(self, width: int, heads: int, *, reads_text: bool) -> None:
        super().__init__()
        self.heads = heads
        self.norm_q, self.norm_v = nn.RMSNorm(width), nn.RMSNorm(width)
        self.to_q, self.to_k_vis, self.to_v_vis = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.Sequential(nn.Linear(width, width))
        if reads_text:
            self.norm_t = nn.RMSNorm(width)
            self.to_k_text, self.to_v_text = (nn.Linear(width, width) for _ in range(2))
            self.gate_vis, self.gate_text = _gate(width), _gate(width)

    def forward(self, queries: Tensor, image: Tensor, text: Tensor | None = None) -> Tensor:
        """Queries (B, Q, D) after they have read tokens (B, N, D) and perhaps (B, L, D)."""
        asked, image = self.to_q(self.norm_q(queries)), self.norm_v(image)
        values = self.to_v_vis(image)
        if text is None:
            return self._added(queries, self._attended(asked, self.to_k_vis(image), values))
        text = self.norm_t(text)
        read = self._attended(asked, self.to_k_vis(image), values * self.gate_vis(image).sigmoid())
        read = read + self._attended(asked, self.to_k_text(text), self.to_v_text(text) * self.gate_text(text).sigmoid())
        return self._added(queries, read)

    def _added(self, queries: Tensor, read: Tensor) -> Tensor:
        added: Tensor = queries + self.to_out(read)
        return added

    def _attended(self, *parts: Tensor) -> Tensor:
        query, key, value = (part.view(*part.shape[:2], self.heads, -1).transpose(1, 2) for part in parts)
        return scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


class RewardHead(nn.Module):
    """From tokens of several blocks to a score.

    Args:
        tokens: width of the transformer's tokens, and of the embedded time.
        form: of the head.
    """

    def __init__(self, tokens: int, form: HeadForm) -> None:
        super().__init__()
        width = form.width or tokens
        for name, blocks in (("visual", form.image_blocks), ("text", form.text_blocks)):
            adapters = [TokenAdapter(tokens, tokens, width, projected=form.projected) for _ in blocks]
            self.add_module(f"layer_adapters_{name}", nn.ModuleList(adapters))
            self.add_module(f"agg_{name}", nn.Linear(len(blocks) * (width // 4), width))
        self.query_tokens = nn.Parameter(torch.zeros(1, form.queries, width))
        self.attn1 = QueryAttention(width, form.heads, reads_text=True)
        self.attn2 = QueryAttention(width, form.heads, reads_text=False)
        self.norm_ff = nn.RMSNorm(width)
        self.ff = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.head = nn.Linear(width, 1)

    def forward(self, image: Sequence[Tensor], text: Sequence[Tensor], time: Tensor) -> Tensor:
        """Scores (B,) from the tokens of each block that is read, and the embedded time (B, E)."""
        seen, read = self._joined("visual", image, time), self._joined("text", text, time)
        queries = self.attn1(self.query_tokens.expand(len(time), -1, -1), seen, read)
        queries = self.attn2(queries, seen)
        queries = queries + self.ff(self.norm_ff(queries))
        scores: Tensor = self.head(queries).mean((1, 2))
        return scores

    def _joined(self, name: str, tokens: Sequence[Tensor], time: Tensor) -> Tensor:
        adapters = self.get_submodule(f"layer_adapters_{name}").children()
        parts = [adapter(part, time) for adapter, part in zip(adapters, tokens, strict=True)]
        joined: Tensor = self.get_submodule(f"agg_{name}")(torch.cat(parts, -1))
        return joined


@dataclass(frozen=True, kw_only=True)
class EmbeddedPrompts(TensorRows):
    """Prompts as the transformer's blocks take them.

    Attributes:
        states: (B, L, D).
        pooled: (B, P).
    """

    states: Tensor
    pooled: Tensor


class DinaRewardModel(nn.Module):
    """Blocks, head and text encoders.

    Args:
        transformer: an ``SD3Transformer2DModel``; what follows the blocks that are kept is dropped from it.
        text_encoders: both CLIPs and the T5 of its pipeline.
        form: of blocks and head.
        clean_level: level of the noise that clean latents are given.
    """

    image_size = None
    """Images are scored in the size that they have."""

    def __init__(
        self, transformer: Any, text_encoders: Sequence[nn.Module], form: HeadForm, *, clean_level: float = CLEAN_LEVEL
    ) -> None:
        super().__init__()
        self.form, self.clean_level = form, clean_level
        transformer.transformer_blocks = transformer.transformer_blocks[: form.blocks]
        transformer.norm_out = transformer.proj_out = None
        self.transformer = transformer
        self.reward_head = RewardHead(transformer.inner_dim, form)
        self.text_encoders = nn.ModuleList(text_encoders)

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the network."""
        dtype: torch.dtype = self.reward_head.query_tokens.dtype
        return dtype

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.reward_head.query_tokens.device

    def read(self, ids: Tensor, ids_2: Tensor, ids_3: Tensor) -> EmbeddedPrompts:
        """Prompts from token ids (B, L) of each text encoder."""
        tokens = Sd3Tokens(ids=ids, ids_2=ids_2, ids_3=ids_3)
        embedded: Any = STABLE_DIFFUSION_3.embed_tokens(list(self.text_encoders), tokens)
        return EmbeddedPrompts(
            states=self.transformer.context_embedder(embedded.prompt_embeds.to(self.dtype)),
            pooled=embedded.pooled_prompt_embeds.to(self.dtype),
        )

    def scores(
        self, latents: Tensor, timestep: Tensor, prompts: Sequence[str], read: Callable[[str], EmbeddedPrompts]
    ) -> Tensor:
        """Scores (B,) float32 of latents (B, C, H, W) at levels (B,); what is clean gets noise first."""
        levels = timestep.float()
        noise = draw_noise(
            latents.shape[1:], generator=torch.Generator().manual_seed(NOISE_SEED), device=latents.device
        )
        level = over_latents((levels <= 0) * self.clean_level, latents)
        noisy = (1 - level) * latents + level * noise
        asked = EmbeddedPrompts.cat([read(prompt) for prompt in prompts])
        return self.scores_of_noisy(noisy, torch.where(levels > 0, levels, self.clean_level), asked)

    def scores_of_noisy(self, latents: Tensor, levels: Tensor, prompts: EmbeddedPrompts) -> Tensor:
        """Scores (B,) float32 of noisy latents (B, C, H, W) at levels (B,) in (0, 1]."""
        transformer = self.transformer
        image, text = transformer.pos_embed(latents.to(self.dtype)), prompts.states
        time = transformer.time_text_embed(1000 * levels, prompts.pooled)
        images, texts = [image], [text]
        for block in transformer.transformer_blocks:
            text, image = block(hidden_states=image, encoder_hidden_states=text, temb=time)
            images.append(image)
            texts.append(text)
        scores: Tensor = self.reward_head(
            [images[number] for number in self.form.image_blocks],
            [texts[number] for number in self.form.text_blocks],
            time,
        )
        return scores.float()
