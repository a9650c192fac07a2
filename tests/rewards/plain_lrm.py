"""LPO's latent reward model written down a second time, in plain torch on the published tensors.

After ``sd15_preference_model.py``, ``sdxl_base_preference_model.py`` and the UNet of the authors' repository. Of
diffusers and transformers only the classes that write a checkpoint, and a tokenizer, are used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import conv2d, group_norm, layer_norm, linear, silu
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from tests.rewards.small_checkpoints import shaken
from tools.scenes.components import build_tokenizer

KINDS = ("sd15", "sd21", "sdxl")
FOLDERS = {"sd15": "lrm_sd15", "sd21": "lrm_sd21", "sdxl": "lrm_sdxl"}
SIZE, WIDTH, TEXT, TEXT_2, GROUPS = 8, 20, 32, 24, 4
"""Latents are 8 x 8; width of the common space; of the text encoders; groups of the norms."""

HEADS = {"sd15": (2, 2), "sd21": (2, 4), "sdxl": (2, 4)}
DEPTHS = {"sd15": (1, 1), "sd21": (1, 1), "sdxl": (1, 2)}
CHANNELS = (8, 16)


def unet(kind: str) -> UNet2DConditionModel:
    """The UNet of a checkpoint with two resolutions, of the class and with the options of the published one."""
    sdxl = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": TEXT_2 + 6 * 8,
    }
    return UNet2DConditionModel(
        sample_size=SIZE,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D")
        if kind == "sdxl"
        else ("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D") if kind == "sdxl" else ("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=CHANNELS,
        layers_per_block=2,
        norm_num_groups=GROUPS,
        cross_attention_dim=TEXT + TEXT_2 if kind == "sdxl" else TEXT,
        attention_head_dim=HEADS[kind],
        use_linear_projection=kind != "sd15",
        transformer_layers_per_block=DEPTHS[kind],
        **(sdxl if kind == "sdxl" else {}),
    )


def text_model(tokenizer: CLIPTokenizer, kind: type, *, width: int, activation: str) -> Any:
    """A text encoder of two layers."""
    return kind(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            projection_dim=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            hidden_act=activation,
        )
    )


def autoencoder() -> AutoencoderKL:
    """An autoencoder of eight pixels per latent, as Stable Diffusion's."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(4, 4, 4, 4),
        norm_num_groups=2,
        latent_channels=4,
        layers_per_block=1,
        scaling_factor=0.18215,
    )


def publish(folder: Path, kind: str, *, seed: int = 0) -> Path:
    """A small random checkpoint in the published layout, with tokenizers and autoencoder of its base model beside it.

    Returns:
        The model's own folder in it.
    """
    own = folder / FOLDERS[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = build_tokenizer(own / "tokenizer")
        parts: dict[str, Any] = {
            "unet": unet(kind),
            "text_encoder": text_model(
                tokenizer, CLIPTextModel, width=TEXT, activation="gelu" if kind == "sd21" else "quick_gelu"
            ),
        }
        if kind == "sdxl":
            build_tokenizer(own / "tokenizer_2")
            parts["text_encoder_2"] = text_model(
                tokenizer, CLIPTextModelWithProjection, width=TEXT_2, activation="gelu"
            )
        for number, (name, part) in enumerate(parts.items()):
            shaken(part.state_dict(), seed=seed + number)
            part.save_pretrained(own / name)
        autoencoder().save_pretrained(own / "vae")
        width = TEXT_2 if kind == "sdxl" else WIDTH
        state: dict[str, Any] = {
            "visual_projection": {"weight": torch.randn(width, sum(CHANNELS) + CHANNELS[-1]) / 6},
            "logit_scale": torch.tensor(2.0),
        }
        if kind != "sdxl":
            state["text_projection"] = {"weight": torch.randn(width, TEXT) / 6}
        torch.save(state, own / "state_dict.pt")
    return own


class Plain:
    """The computation on the tensors of a folder, in float64.

    Args:
        folder: of the model.
        kind: which one it is.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self.kind = kind
        self.state = torch.load(folder / "state_dict.pt", weights_only=True)
        self.unet = _double(load_file(folder / "unet" / "diffusion_pytorch_model.safetensors"))
        self.texts = [
            _double(load_file(folder / part / "model.safetensors"))
            for part in ("text_encoder", "text_encoder_2")
            if (folder / part).is_dir()
        ]
        self.tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")

    def score(self, latents: Tensor, prompts: Sequence[str], timestep: Tensor) -> Tensor:
        """Scores (B,) float64 of noisy latents (B, 4, S, S) at times (B,)."""
        states, pooled = self.text([*prompts, *([""] * len(prompts))])
        text = pooled[: len(prompts)]
        if self.kind != "sdxl":
            text = text @ self.state["text_projection"]["weight"].double().T
        both = torch.cat([latents, latents]).double()
        features = self.image(both, torch.cat([timestep, timestep]), states, pooled)
        image = features @ self.state["visual_projection"]["weight"].double().T
        cosine = (image * text).sum(-1) / (image.norm(dim=-1) * text.norm(dim=-1))
        return math.exp(float(self.state["logit_scale"])) * cosine

    def text(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """States (N, L, C) for the UNet and the pooled embedding (N, P)."""
        length = self.tokenizer.model_max_length
        ids = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        ).input_ids
        quick = self.kind != "sd21"
        states, pooled, before = clip_text(self.texts[0], ids, quick=quick)
        if self.kind != "sdxl":
            return states, pooled
        _, pooled, second = clip_text(self.texts[1], ids, quick=False)
        return torch.cat([before, second], -1), pooled @ self.texts[1]["text_projection.weight"].T

    def image(self, latents: Tensor, timestep: Tensor, text: Tensor, pooled: Tensor) -> Tensor:
        """The pooled features of all scales; the middle's guided at 7.5, (B, sum of channels)."""
        w = self.unet
        time = mlp(w, "time_embedding", waves(timestep.double(), CHANNELS[0]))
        if self.kind == "sdxl":
            sizes = torch.tensor([64.0, 64.0, 0.0, 0.0, 64.0, 64.0], dtype=torch.float64).repeat(len(latents))
            added = waves(sizes, 8).view(len(latents), -1)
            time = time + mlp(w, "add_embedding", torch.cat([pooled, added], -1))
        hidden, kept = conv(w, "conv_in", latents), []
        attended = (1,) if self.kind == "sdxl" else (0,)
        for block in range(2):
            for layer in range(2):
                hidden = resnet(w, f"down_blocks.{block}.resnets.{layer}", hidden, time)
                if block in attended:
                    hidden = self.attention(f"down_blocks.{block}.attentions.{layer}", hidden, text, block)
            kept.append(hidden)
            if block == 0:
                hidden = conv(w, "down_blocks.0.downsamplers.0.conv", hidden, stride=2)
        hidden = resnet(w, "mid_block.resnets.0", hidden, time)
        hidden = self.attention("mid_block.attentions.0", hidden, text, 1)
        hidden = resnet(w, "mid_block.resnets.1", hidden, time)
        count = len(latents) // 2
        middle = hidden.mean((2, 3))
        guided = middle[count:] + 7.5 * (middle[:count] - middle[count:])
        return torch.cat([*(state.mean((2, 3))[:count] for state in kept), guided], -1)

    def attention(self, name: str, hidden: Tensor, text: Tensor, block: int) -> Tensor:
        """A spatial transformer."""
        w, residual = self.unet, hidden
        batch, channels, height, width = hidden.shape
        heads = HEADS[self.kind][block]
        normed = group_norm(hidden, GROUPS, w[f"{name}.norm.weight"], w[f"{name}.norm.bias"], 1e-6)
        rows = normed.flatten(2).transpose(1, 2)
        rows = affine(w, f"{name}.proj_in", rows)
        for depth in range(DEPTHS[self.kind][block]):
            at = f"{name}.transformer_blocks.{depth}"
            own = norm(w, f"{at}.norm1", rows)
            rows = rows + attend(w, f"{at}.attn1", own, own, heads)
            rows = rows + attend(w, f"{at}.attn2", norm(w, f"{at}.norm2", rows), text, heads)
            value, gate = affine(w, f"{at}.ff.net.0.proj", norm(w, f"{at}.norm3", rows)).chunk(2, -1)
            rows = rows + affine(w, f"{at}.ff.net.2", value * torch.nn.functional.gelu(gate))
        rows = affine(w, f"{name}.proj_out", rows)
        return residual + rows.transpose(1, 2).reshape(batch, channels, height, width)


def _double(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("text_model."): value.double() for name, value in weights.items()}


def affine(w: dict[str, Tensor], name: str, rows: Tensor) -> Tensor:
    """A linear layer, or a 1 x 1 convolution of rows."""
    return linear(rows, w[f"{name}.weight"].flatten(1), w.get(f"{name}.bias"))


def norm(w: dict[str, Tensor], name: str, rows: Tensor) -> Tensor:
    return layer_norm(rows, rows.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])


def conv(w: dict[str, Tensor], name: str, hidden: Tensor, *, stride: int = 1) -> Tensor:
    weight = w[f"{name}.weight"]
    return conv2d(hidden, weight, w[f"{name}.bias"], stride=stride, padding=weight.shape[-1] // 2)


def mlp(w: dict[str, Tensor], name: str, rows: Tensor) -> Tensor:
    return affine(w, f"{name}.linear_2", silu(affine(w, f"{name}.linear_1", rows)))


def waves(times: Tensor, width: int) -> Tensor:
    """cos and sin of times at falling frequencies."""
    rates = torch.exp(-math.log(10000.0) * torch.arange(width // 2, dtype=torch.float64) / (width // 2))
    angles = times[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], -1)


def resnet(w: dict[str, Tensor], name: str, hidden: Tensor, time: Tensor) -> Tensor:
    """Norm, SiLU, convolution, time, and the same again, beside the input."""
    first = group_norm(hidden, GROUPS, w[f"{name}.norm1.weight"], w[f"{name}.norm1.bias"], 1e-5)
    inner = conv(w, f"{name}.conv1", silu(first)) + affine(w, f"{name}.time_emb_proj", silu(time))[:, :, None, None]
    second = group_norm(inner, GROUPS, w[f"{name}.norm2.weight"], w[f"{name}.norm2.bias"], 1e-5)
    beside = conv(w, f"{name}.conv_shortcut", hidden) if f"{name}.conv_shortcut.weight" in w else hidden
    return beside + conv(w, f"{name}.conv2", silu(second))


def heads_of(rows: Tensor, heads: int) -> Tensor:
    batch, length, width = rows.shape
    return rows.view(batch, length, heads, width // heads).transpose(1, 2)


def softmax_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(mask, -math.inf)
    mixed = scores.softmax(-1) @ value
    return mixed.transpose(1, 2).flatten(2)


def attend(w: dict[str, Tensor], name: str, rows: Tensor, context: Tensor, heads: int) -> Tensor:
    parts = [affine(w, f"{name}.to_{part}", rows if part == "q" else context) for part in "qkv"]
    return affine(w, f"{name}.to_out.0", softmax_attention(*(heads_of(part, heads) for part in parts)))


def clip_text(w: dict[str, Tensor], ids: Tensor, *, quick: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Last states after the final norm, the state at the end token, and the states before the last layer."""
    length = ids.shape[1]
    rows = w["embeddings.token_embedding.weight"][ids] + w["embeddings.position_embedding.weight"][:length]
    mask = torch.ones(length, length).triu(1).bool()
    before = rows
    for layer in range(2):
        before, at = rows, f"encoder.layers.{layer}"
        own = norm(w, f"{at}.layer_norm1", rows)
        parts = [heads_of(affine(w, f"{at}.self_attn.{part}_proj", own), 4) for part in "qkv"]
        rows = rows + affine(w, f"{at}.self_attn.out_proj", softmax_attention(*parts, mask))
        inner = affine(w, f"{at}.mlp.fc1", norm(w, f"{at}.layer_norm2", rows))
        inner = inner * (1.702 * inner).sigmoid() if quick else torch.nn.functional.gelu(inner)
        rows = rows + affine(w, f"{at}.mlp.fc2", inner)
    final = norm(w, "final_layer_norm", rows)
    end = ids.argmax(-1)  # the end token has the largest id, and the first of equal ones is the end
    return final, final[torch.arange(len(ids)), end], before
