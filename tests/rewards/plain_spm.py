"""SPO's step-aware preference model written down a second time, in plain torch on the published tensors.

After ``step_aware_preference_model.py`` and ``time_conditioned_clip.py`` of the authors' repository; of transformers,
only a tokenizer is used.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, gelu, interpolate, layer_norm, normalize, silu
from transformers import CLIPTokenizer

from tools.scenes.components import PROMPT_LENGTH

WIDTH, TEXT_WIDTH, JOINT, HEADS, DEPTH, TEXT_DEPTH, SIZE, PATCH = 32, 24, 20, 4, 2, 2, 16, 4
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def configuration(tokenizer: CLIPTokenizer) -> dict[str, Any]:
    """The ``config.json`` of the small checkpoint: CLIP-H/14's is the default."""
    return {
        "model_type": "clip",
        "projection_dim": JOINT,
        "text_config": {
            "hidden_act": "gelu",
            "hidden_size": TEXT_WIDTH,
            "intermediate_size": 2 * TEXT_WIDTH,
            "num_attention_heads": HEADS,
            "num_hidden_layers": TEXT_DEPTH,
            "max_position_embeddings": PROMPT_LENGTH,
            "vocab_size": len(tokenizer),
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        "vision_config": {
            "hidden_act": "gelu",
            "hidden_size": WIDTH,
            "intermediate_size": 4 * WIDTH,
            "num_attention_heads": HEADS,
            "num_hidden_layers": DEPTH,
            "image_size": SIZE,
            "patch_size": PATCH,
        },
    }


def shapes(words: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a published checkpoint, scaled down."""
    found: dict[str, tuple[int, ...]] = {"logit_scale": ()}

    def linear(name: str, out: int, into: int) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = (out, into), (out,)

    def norm(name: str, width: int) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = (width,), (width,)

    def tower(name: str, width: int, inner: int, depth: int) -> None:
        for layer in (f"{name}.encoder.layers.{index}" for index in range(depth)):
            for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                linear(f"{layer}.self_attn.{part}", width, width)
            norm(f"{layer}.layer_norm1", width)
            norm(f"{layer}.layer_norm2", width)
            linear(f"{layer}.mlp.fc1", inner, width)
            linear(f"{layer}.mlp.fc2", width, inner)
            if name == "vision_model":
                linear(f"{layer}.adaLN_modulation.1", 6 * width, width)

    found["text_model.embeddings.token_embedding.weight"] = (words, TEXT_WIDTH)
    found["text_model.embeddings.position_embedding.weight"] = (PROMPT_LENGTH, TEXT_WIDTH)
    tower("text_model", TEXT_WIDTH, 2 * TEXT_WIDTH, TEXT_DEPTH)
    norm("text_model.final_layer_norm", TEXT_WIDTH)
    found["vision_model.embeddings.class_embedding"] = (WIDTH,)
    found["vision_model.embeddings.patch_embedding.weight"] = (WIDTH, 3, PATCH, PATCH)
    found["vision_model.embeddings.position_embedding.weight"] = ((SIZE // PATCH) ** 2 + 1, WIDTH)
    norm("vision_model.pre_layrnorm", WIDTH)
    tower("vision_model", WIDTH, 4 * WIDTH, DEPTH)
    norm("vision_model.post_layernorm", WIDTH)
    linear("vision_model.adaLN_modulation.1", 2 * WIDTH, WIDTH)
    found["visual_projection.weight"], found["text_projection.weight"] = (JOINT, WIDTH), (JOINT, TEXT_WIDTH)
    linear("t_embedder.mlp.0", WIDTH, 256)
    linear("t_embedder.mlp.2", WIDTH, WIDTH)
    return {f"model.{name}": shape for name, shape in found.items()}


def checkpoint(words: int, *, seed: int = 0) -> dict[str, Tensor]:
    """Random weights that keep activations at about one, and the lists of positions that old files hold too."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes(words).items():
        is_norm = "norm" in name.rpartition(".")[0].rpartition(".")[2]
        spread = 0.3 if len(shape) < 2 or "embedding.weight" in name else math.prod(shape[1:]) ** -0.5
        value = spread * torch.randn(shape, generator=generator)
        weights[name] = value + 1.0 if is_norm and name.endswith("weight") else value
    weights["model.logit_scale"] = torch.tensor(2.0)
    weights["model.text_model.embeddings.position_ids"] = torch.arange(PROMPT_LENGTH)[None]
    weights["model.vision_model.embeddings.position_ids"] = torch.arange((SIZE // PATCH) ** 2 + 1)[None]
    return weights


def publish(folder: Path, weights: dict[str, Tensor], tokenizer: CLIPTokenizer, *, file: str) -> Path:
    """A folder with a published checkpoint, its configuration and its tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(weights, folder / file)
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(configuration(tokenizer)), encoding="utf-8")
    return folder


def prepared(images: Tensor) -> Tensor:
    """As ``get_preference_score`` prepares decoded images in [-1, 1]."""
    shortest = min(images.size(-2), images.size(-1))
    scale = SIZE / shortest
    tall, wide = int(images.size(-2) * scale + 0.5), int(images.size(-1) * scale + 0.5)
    images = interpolate(images, size=(tall, wide), mode="bicubic", align_corners=False)
    top, left = round((tall - SIZE) / 2.0), round((wide - SIZE) / 2.0)
    images = images[..., top : top + SIZE, left : left + SIZE]
    images = (images / 2 + 0.5).clamp(0, 1)
    return (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


class Plain:
    """The published model's score of one image at one time step.

    Args:
        weights: by published name.
        tokenizer: the model's.
    """

    def __init__(self, weights: dict[str, Tensor], tokenizer: CLIPTokenizer) -> None:
        self.weights = {name.removeprefix("model."): value.double() for name, value in weights.items()}
        self.tokenizer = tokenizer

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, name: str, x: Tensor) -> Tensor:
        return layer_norm(x, x.shape[-1:], self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], 1e-5)

    def attend(self, name: str, x: Tensor, mask: Tensor | float = 0.0) -> Tensor:
        parts = [
            self.linear(f"{name}.{part}", x).unflatten(-1, (HEADS, -1)).transpose(0, 1)
            for part in ("q_proj", "k_proj", "v_proj")
        ]
        scores = parts[0] @ parts[1].mT / math.sqrt(parts[0].shape[-1]) + mask
        return self.linear(f"{name}.out_proj", (scores.softmax(-1) @ parts[2]).transpose(0, 1).flatten(1))

    def mlp(self, name: str, x: Tensor) -> Tensor:
        return self.linear(f"{name}.fc2", gelu(self.linear(f"{name}.fc1", x)))

    def time(self, timestep: float) -> Tensor:
        frequencies = torch.exp(-math.log(10000) * torch.arange(128, dtype=torch.float64) / 128)
        waves = torch.cat([torch.cos(timestep * frequencies), torch.sin(timestep * frequencies)])
        return self.linear("t_embedder.mlp.2", silu(self.linear("t_embedder.mlp.0", waves)))

    def image(self, pixels: Tensor, timestep: float) -> Tensor:
        """Embedding (D,) of a prepared image (3, S, S)."""
        time, tower = silu(self.time(timestep)), "vision_model"
        patches = conv2d(
            pixels[None].double(), self.weights[f"{tower}.embeddings.patch_embedding.weight"], stride=PATCH
        )
        x = torch.cat([self.weights[f"{tower}.embeddings.class_embedding"][None], patches[0].flatten(1).T])
        x = self.norm(f"{tower}.pre_layrnorm", x + self.weights[f"{tower}.embeddings.position_embedding.weight"])
        for layer in (f"{tower}.encoder.layers.{index}" for index in range(DEPTH)):
            shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self.linear(f"{layer}.adaLN_modulation.1", time).chunk(
                6
            )
            x = x + gate * self.attend(f"{layer}.self_attn", self.norm(f"{layer}.layer_norm1", x) * (1 + scale) + shift)
            seen = self.norm(f"{layer}.layer_norm2", x) * (1 + scale_mlp) + shift_mlp
            x = x + gate_mlp * self.mlp(f"{layer}.mlp", seen)
        shift, scale = self.linear(f"{tower}.adaLN_modulation.1", time).chunk(2)
        return self.weights["visual_projection.weight"] @ (
            self.norm(f"{tower}.post_layernorm", x[0]) * (1 + scale) + shift
        )

    def text(self, prompt: str) -> Tensor:
        """Embedding (D,) of a prompt; without a mask of padded tokens, as in the original."""
        ids = self.tokenizer(prompt, max_length=PROMPT_LENGTH, padding="max_length", truncation=True).input_ids
        tower = "text_model"
        x = self.weights[f"{tower}.embeddings.token_embedding.weight"][torch.tensor(ids)]
        x = x + self.weights[f"{tower}.embeddings.position_embedding.weight"]
        mask = torch.full((PROMPT_LENGTH, PROMPT_LENGTH), -math.inf, dtype=torch.float64).triu(1)
        for layer in (f"{tower}.encoder.layers.{index}" for index in range(TEXT_DEPTH)):
            x = x + self.attend(f"{layer}.self_attn", self.norm(f"{layer}.layer_norm1", x), mask)
            x = x + self.mlp(f"{layer}.mlp", self.norm(f"{layer}.layer_norm2", x))
        end = ids.index(self.tokenizer.eos_token_id)
        return self.weights["text_projection.weight"] @ self.norm(f"{tower}.final_layer_norm", x)[end]

    def score(self, image: Tensor, prompt: str, timestep: float) -> float:
        """Of an image (3, H, W) in [-1, 1]."""
        seen = normalize(self.image(prepared(image[None])[0], timestep), dim=0)
        return float(self.weights["logit_scale"].exp() * (seen * normalize(self.text(prompt), dim=0)).sum())

    def scores(self, images: Sequence[Tensor], prompts: Sequence[str], timesteps: Sequence[float]) -> Tensor:
        found = [self.score(*row) for row in zip(images, prompts, timesteps, strict=True)]
        return torch.tensor(found)
