"""Multi-dimensional Preference Score (arXiv 2405.14705): a CLIP-H whose image looks at words that a condition names.

    t_i, c_j = projected states of the prompt's and the condition's tokens;  e = the prompt's embedding
    keep token i where max_j t_i c_j > 0.3 max_ij t_i c_j
    v = four blocks of cross attention from the image's patches to the tokens kept, and of attention among the patches
    score = exp(logit_scale) cos(e, v_0)

A difference of two scores of one prompt is in log-odds. The authors publish one pickled Python object, which nothing
that refuses to run code from files can read. What is read here are its tensors by their names: ``model.*``, a CLIP of
transformers, and ``cross_model.layers.N.0.fn.*`` and ``.N.1.fn.*``; a prefix ``mps.``, as the copy on the hub has it,
is taken off. The authors' evaluations keep tokens above 0.3, as here; the method ``forward`` of their class, above
0.01.

The paper's model has learned several aspects of a preference. That which is published has learned the overall one
alone: with a condition of another aspect it looks at other words, but its taste is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, scaled_dot_product_attention, silu
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from seedpo.errors import DataError
from seedpo.protocols import Images
from seedpo.rewards.checkpoints import fill, located
from seedpo.rewards.clip import (
    CLIP_H,
    CLIP_H14,
    TOKENIZER_PARTS,
    PromptTable,
    clip_tokenizer,
    configuration_at,
    no_pixels,
    no_tokens,
    transformers_tokens,
)
from seedpo.rewards.networks import RewardNetwork, on_meta
from seedpo.rewards.preprocessing import clip_pixels
from seedpo.rewards.scoring import score_in_batches
from seedpo.weights import read_weights

REPOSITORY = "RE-N-Y/mpsv1"
"""Of a copy of the weights on the hub, as safetensors, by the authors of the package imscore."""

WEIGHTS = "*.safetensors"

AESTHETICS = "light, color, clarity, tone, style, ambiance, artistry"
DETAIL = "shape, face, hair, hands, limbs, structure, instance, texture"
ALIGNMENT = "quantity, attributes, position, number, location, word, things"
OVERALL = f"{AESTHETICS}, {DETAIL}, {ALIGNMENT}."
"""The condition with which the published model was trained; the others are its parts."""

KEPT_ABOVE = 0.3
"""Of the greatest product of a token of the prompt with one of the condition."""

HEAD_WIDTH = 64
LAYERS = 4
"""Of the cross attention as published."""

BATCH_SIZE = 32
"""Most images that the network sees at once."""

_PREFIX = "mps."
_UNUSED = ("*position_ids", "*.inv_freq", "*.pos_emb")
"""Tensors of the file that follow from their places: 0, 1, 2, ... and the frequencies of a rotary embedding."""


class Gated(nn.Module):
    """SwiGLU: the first half of the channels, times the SiLU of the second."""

    def forward(self, x: Tensor) -> Tensor:
        """Half of the channels."""
        value, gate = x.chunk(2, -1)
        return silu(gate) * value


class CrossAttention(nn.Module):
    """Attention to the prompt's tokens, in which all heads share keys and values, and a feed-forward part beside it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_kv = nn.Linear(width, 2 * HEAD_WIDTH, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)
        self.ff = nn.Sequential(
            nn.Linear(width, 8 * width, bias=False), Gated(), nn.Linear(4 * width, width, bias=False)
        )

    def forward(self, x: Tensor, tokens: Tensor, kept: Tensor) -> Tensor:
        """X (B, N, W), tokens (B, L, W), and whether they are kept (B, L)."""
        x = self.norm(x)
        key, value = self.to_kv(tokens)[:, None].chunk(2, -1)
        attended = _attention(self.to_q(x), key, value, kept[:, None, None])
        result: Tensor = self.to_out(attended) + self.ff(x)
        return result


class PatchAttention(nn.Module):
    """Attention among patches with a rotary embedding, keys and values shared, and a feed-forward part beside it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.sizes = (width, HEAD_WIDTH, HEAD_WIDTH, 8 * width)
        self.norm = nn.LayerNorm(width)
        self.fused_attn_ff_proj = nn.Linear(width, sum(self.sizes), bias=False)
        self.attn_out = nn.Linear(width, width, bias=False)
        self.ff_out = nn.Sequential(Gated(), nn.Linear(4 * width, width, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """X (B, N, W)."""
        query, key, value, inner = self.fused_attn_ff_proj(self.norm(x)).split(self.sizes, -1)
        exponents = torch.arange(0, HEAD_WIDTH, 2, dtype=torch.float32, device=x.device) / HEAD_WIDTH
        angles = torch.arange(x.shape[1], device=x.device)[:, None] / 10000.0**exponents
        cos, sin = angles.cos().repeat(1, 2).to(x.dtype), angles.sin().repeat(1, 2).to(x.dtype)
        query = _turned(query.unflatten(-1, (-1, HEAD_WIDTH)), cos[:, None], sin[:, None]).flatten(-2)
        attended = _attention(query, _turned(key, cos, sin)[:, None], value[:, None], None)
        result: Tensor = self.attn_out(attended) + self.ff_out(inner)
        return result


class Added(nn.Module):
    """What a layer gives, added to what it reads."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.fn = layer

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        """X (B, N, W)."""
        result: Tensor = x + self.fn(x, *others)
        return result


class CrossModel(nn.Module):
    """Blocks that mix patches with tokens, and with each other.

    Args:
        width: of both; a multiple of 64.
        layers: number of blocks.
    """

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleList([Added(CrossAttention(width)), Added(PatchAttention(width))]) for _ in range(layers)
        )

    def forward(self, patches: Tensor, tokens: Tensor, kept: Tensor) -> Tensor:
        """Patches (B, N, W)."""
        for block in self.layers:
            across, among = cast(Iterable[nn.Module], block)
            patches = among(across(patches, tokens, kept))
        return patches


@dataclass(frozen=True, kw_only=True)
class ReadPrompt:
    """What the network reads of a prompt.

    Attributes:
        tokens: projected states, (L, W).
        embedding: of the whole prompt, (W,) float32, of length 1.
        kept: tokens that the condition names, (L,).
    """

    tokens: Tensor
    embedding: Tensor
    kept: Tensor


class MPSNetwork(nn.Module):
    """The network of MPS; its tensors have the published names.

    Args:
        config: of the CLIP; its projections are as wide as the cross attention.
        layers: of the cross attention.
    """

    def __init__(self, config: CLIPConfig, layers: int = LAYERS) -> None:
        super().__init__()
        self.model = CLIPModel(config)
        self.cross_model = CrossModel(config.projection_dim, layers)

    def states(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Projected states (B, L, W) of all tokens, padded places too, and of the first end token (B, W)."""
        read = self.model.text_model(input_ids=input_ids)
        tokens, ends = (self.model.text_projection(part) for part in (read.last_hidden_state, read.pooler_output))
        return cast(Tensor, tokens), cast(Tensor, ends)

    def forward(self, pixels: Tensor, tokens: Tensor, embeddings: Tensor, kept: Tensor) -> Tensor:
        """Scores (B,) float32 of normalised images (B, 3, S, S), under prompts that are read already."""
        seen = self.model.vision_model(pixel_values=pixels.to(self.model.dtype)).last_hidden_state
        first = self.cross_model(self.model.visual_projection(seen), tokens, kept)[:, 0]
        cosines = (normalize(first.float(), dim=-1) * embeddings).sum(-1)
        scores: Tensor = cosines * self.model.logit_scale.float().exp()
        return scores


def kept_tokens(tokens: Tensor, condition: Tensor) -> Tensor:
    """Which tokens (L, W) of a prompt a condition (M, W) names, (L,)."""
    likeness = (tokens.float() @ condition.float().T).amax(-1)
    return likeness / likeness.max() > KEPT_ABOVE


class MPS:
    """MPS as a reward, under one condition. Images are prepared as transformers' CLIPImageProcessor prepares them.

    Args:
        network: the network.
        tokenizer: CLIP-H's.
        condition: words for what counts.
        batch_size: most images that the network sees at once.
    """

    def __init__(
        self,
        network: MPSNetwork,
        tokenizer: CLIPTokenizer,
        *,
        condition: str = OVERALL,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.condition = condition
        self.batch_size = batch_size
        self._prompts = PromptTable(self._read_prompt)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Moves the network to a device and to a number format; `None` leaves it as it is."""
        self.network.to(device=device, dtype=dtype)
        self._prompts.clear()
        return self

    def __call__(self, images: Images, prompts: Sequence[str]) -> Tensor:
        """Scores (B,) float32 of images (B, 3, H, W) in [0, 1], or of PIL images, each with its prompt.

        Raises:
            DataError: if the counts differ, or an element is not an image.
        """
        device = self.network.model.device
        return score_in_batches(images, prompts, self._score, batch_size=self.batch_size, device=device)

    def _score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        pixels = clip_pixels(images, self.network.model.config.vision_config.image_size, crop="transformers")
        read = self._prompts.each(prompts)
        scores: Tensor = self.network(
            pixels,
            torch.stack([prompt.tokens for prompt in read]),
            torch.stack([prompt.embedding for prompt in read]),
            torch.stack([prompt.kept for prompt in read]),
        )
        return scores

    def _read_prompt(self, prompt: str) -> ReadPrompt:
        (tokens, ends), (condition, _) = (self.network.states(self._ids(text)) for text in (prompt, self.condition))
        return ReadPrompt(
            tokens=tokens[0],
            embedding=normalize(ends[0].float(), dim=-1),
            kept=kept_tokens(tokens[0], condition[0]),
        )

    def _ids(self, text: str) -> Tensor:
        """Ids (1, L), without a mask: the original gives none."""
        length = self.network.model.config.text_config.max_position_embeddings
        return transformers_tokens(self.tokenizer, text, length)["input_ids"].to(self.network.model.device)


def network_of(weights: Mapping[str, Tensor], configuration: Mapping[str, Any], *, origin: str | Path) -> MPSNetwork:
    """The network that weights belong to, in float32.

    Args:
        weights: by their published names, or with ``mps.`` before each.
        configuration: of the CLIP.
        origin: of the weights, for errors.

    Raises:
        DataError: if tensors are missing, unknown, or of another shape.
    """
    held = {name.removeprefix(_PREFIX): value for name, value in weights.items()}
    numbers = [name.split(".")[2] for name in held if name.startswith("cross_model.layers.")]
    layers = max((int(number) + 1 for number in numbers if number.isdecimal()), default=LAYERS)
    with torch.device("meta"):  # no time is spent on random weights
        network = MPSNetwork(CLIPConfig(**configuration), layers)
    fill(network, held, origin=origin, ignored=_UNUSED)
    for tower in (network.model.text_model, network.model.vision_model):  # buffers that need not be in the file
        tower.embeddings.position_ids = torch.arange(tower.embeddings.position_embedding.num_embeddings)[None]
    return network


@cache
def mps(place: str | None = None) -> MPS:
    """MPS of the overall preference, loaded once per process; 4.4 GB from the hub without a place.

    Args:
        place: folder with one ``.safetensors`` file and, optionally, the CLIP's ``config.json`` and tokenizer; or
            ``owner/name[@revision]`` on the hub.

    Raises:
        DataError: if it cannot be loaded; the message names files or tensors.
    """
    return _load("mps", place, OVERALL)


@cache
def mps_aesthetics(place: str | None = None) -> MPS:
    """As :func:`mps`, under the words for beauty."""
    return _load("mps-aesthetics", place, AESTHETICS)


@cache
def mps_detail(place: str | None = None) -> MPS:
    """As :func:`mps`, under the words for faultless detail."""
    return _load("mps-detail", place, DETAIL)


@cache
def mps_alignment(place: str | None = None) -> MPS:
    """As :func:`mps`, under the words for agreement with the prompt."""
    return _load("mps-alignment", place, ALIGNMENT)


def mps_network(place: str | None = None) -> RewardNetwork:
    """MPS without weights, of any condition."""
    network = on_meta(lambda: MPSNetwork(CLIPConfig(**configuration_at(place, CLIP_H14))))
    clip = network.model

    def score(count: int) -> Tensor:
        ids = no_tokens(clip, count)
        tokens = torch.empty(*ids.shape, clip.config.projection_dim, device="meta", dtype=clip.dtype)
        kept = torch.ones(*ids.shape, device="meta", dtype=torch.bool)
        scores: Tensor = network(no_pixels(clip, count), tokens, tokens[:, 0].float(), kept)
        return scores

    return RewardNetwork(network=network, images=score, prompts=lambda count: network.states(no_tokens(clip, count)))


def _load(name: str, place: str | None, condition: str) -> MPS:
    optional = ("config.json", *TOKENIZER_PARTS)
    folder = _with_weights(name, place, optional)
    (path,) = sorted(folder.glob(WEIGHTS))[:1]
    network = network_of(read_weights(path), configuration_at(str(folder), CLIP_H14), origin=path)
    return MPS(network, clip_tokenizer(name, folder, repository=CLIP_H), condition=condition)


def _with_weights(name: str, place: str | None, optional: Sequence[str]) -> Path:
    local = None if place is None else Path(place)
    if local is not None and local.is_dir() and any(local.glob("*.pth")) and not any(local.glob(WEIGHTS)):
        raise DataError(
            f"reward {name}: {place} holds a pickled Python object, which is not read, for it would run code; if you "
            f"trust it, save its state_dict() there as .safetensors (docs/rewards.md), or name {REPOSITORY}"
        )
    return located(name, place, repository=REPOSITORY, files=[WEIGHTS], optional=optional)


def _attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Attention (B, N, W) of queries (B, N, W), cut into heads, to keys and values (B, 1, M, 64) of all heads."""
    heads = query.reshape(*query.shape[:-1], -1, HEAD_WIDTH).transpose(1, 2)
    key, value = (part.expand(-1, heads.shape[1], -1, -1) for part in (key, value))
    return scaled_dot_product_attention(heads, key, value, attn_mask=mask).transpose(1, 2).flatten(2)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin
