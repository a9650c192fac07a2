"""HPSv3 written down a second time, in float64 on the published tensors, one image at a time.

After the package ``hpsv3`` 1.0.0 and the Qwen2-VL of transformers 4.45, with which it runs; its whole conversation is
read, up to the last token. Nothing of transformers is used, also not for the tokens.
"""

from __future__ import annotations

import json
import math
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import regex
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, silu, softmax

from seedpo.rewards.hpsv3 import INSTRUCTION
from tests.rewards.plain_pixels import normalised
from tests.rewards.small_checkpoints import byte_names

WIDTH, HEADS, KEY_HEADS, DEPTH, INNER = 32, 4, 2, 2, 48
VISION_WIDTH, VISION_HEADS, VISION_DEPTH, PATCH, MERGE = 32, 2, 2, 56, 2
"""Patches are wider than the published 14 pixels, so that an image is 16 tokens long."""

THETA = 1000000.0
AREA = 200704

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
REWARD = "<|Reward|>"

WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CONFIGURATION = {
    "model_type": "qwen2_vl",
    "architectures": ["Qwen2VLForConditionalGeneration"],
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "max_position_embeddings": 32768,
    "num_attention_heads": HEADS,
    "num_hidden_layers": DEPTH,
    "num_key_value_heads": KEY_HEADS,
    "rms_norm_eps": 1e-6,
    "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
    "rope_theta": THETA,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "vocab_size": 99,  # the published one differs from that of the weights, too
    "vision_config": {
        "depth": VISION_DEPTH,
        "embed_dim": VISION_WIDTH,
        "hidden_size": WIDTH,
        "in_chans": 3,
        "mlp_ratio": 4,
        "num_heads": VISION_HEADS,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": 2,
    },
}


@cache
def merges() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A byte-pair encoding that is made for the instruction, so that it is a few hundred tokens long."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(WORDS), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=1500, initial_alphabet=letters, show_progress=False)
    tokenizer.train_from_iterator([INSTRUCTION] * 3, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def vocabulary() -> dict[str, int]:
    """Ids of all tokens, the reward's last."""
    known, _ = merges()
    return known | {name: len(known) + place for place, name in enumerate([*SPECIAL, REWARD])}


def shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of ``HPSv3.safetensors``, scaled down."""
    found: dict[str, tuple[int, ...]] = {}

    def linear(name: str, out: int, into: int, *, bias: bool = True) -> None:
        found[f"{name}.weight"] = (out, into)
        if bias:
            found[f"{name}.bias"] = (out,)

    def norm(name: str, width: int) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = (width,), (width,)

    found["visual.patch_embed.proj.weight"] = (VISION_WIDTH, 3, 2, PATCH, PATCH)
    for block in (f"visual.blocks.{index}" for index in range(VISION_DEPTH)):
        norm(f"{block}.norm1", VISION_WIDTH)
        norm(f"{block}.norm2", VISION_WIDTH)
        linear(f"{block}.attn.qkv", 3 * VISION_WIDTH, VISION_WIDTH)
        linear(f"{block}.attn.proj", VISION_WIDTH, VISION_WIDTH)
        linear(f"{block}.mlp.fc1", 4 * VISION_WIDTH, VISION_WIDTH)
        linear(f"{block}.mlp.fc2", VISION_WIDTH, 4 * VISION_WIDTH)
    norm("visual.merger.ln_q", VISION_WIDTH)
    linear("visual.merger.mlp.0", 4 * VISION_WIDTH, 4 * VISION_WIDTH)
    linear("visual.merger.mlp.2", WIDTH, 4 * VISION_WIDTH)
    found["model.embed_tokens.weight"] = found["lm_head.weight"] = (len(vocabulary()), WIDTH)
    size = WIDTH // HEADS
    for layer in (f"model.layers.{index}" for index in range(DEPTH)):
        linear(f"{layer}.self_attn.q_proj", HEADS * size, WIDTH)
        linear(f"{layer}.self_attn.k_proj", KEY_HEADS * size, WIDTH)
        linear(f"{layer}.self_attn.v_proj", KEY_HEADS * size, WIDTH)
        linear(f"{layer}.self_attn.o_proj", WIDTH, HEADS * size, bias=False)
        for name, out, into in (("gate", INNER, WIDTH), ("up", INNER, WIDTH), ("down", WIDTH, INNER)):
            linear(f"{layer}.mlp.{name}_proj", out, into, bias=False)
        found[f"{layer}.input_layernorm.weight"] = found[f"{layer}.post_attention_layernorm.weight"] = (WIDTH,)
    found["model.norm.weight"] = (WIDTH,)
    for place, out, into in ((0, 1024, WIDTH), (3, 16, 1024), (5, 2, 16)):
        linear(f"rm_head.{place}", out, into)
    return found


def checkpoint(*, seed: int = 0) -> dict[str, Tensor]:
    """Random values of a size at which every part of the network matters."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, shape in shapes().items():
        into = math.prod(shape[1:]) if len(shape) > 1 else 0
        values = torch.randn(shape, generator=generator) * (1.5 / math.sqrt(into) if into else 0.2)
        if name.endswith("weight") and len(shape) == 1:
            values = 1.0 + values
        found[name] = values * (math.sqrt(WIDTH) if "embed_tokens" in name else 1.0)
    return found


def publish(folder: Path, weights: dict[str, Tensor]) -> Path:
    """Writes the published file, and Qwen2-VL's configuration and tokenizer beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "HPSv3.safetensors")
    known, pairs = merges()
    (folder / "config.json").write_text(json.dumps(CONFIGURATION), encoding="utf-8")
    (folder / "vocab.json").write_text(json.dumps(known), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in pairs)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    added = {
        str(len(known) + place): {"content": name, "special": True, "normalized": False, "lstrip": False}
        | {"rstrip": False, "single_word": False}
        for place, name in enumerate(SPECIAL)
    }
    settings = {
        "tokenizer_class": "Qwen2Tokenizer",
        "added_tokens_decoder": added,
        "additional_special_tokens": SPECIAL[1:],
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


class Plain:
    """The original's score of one image at a time."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.weights = {name: value.double() for name, value in weights.items()}
        self.known = vocabulary()
        self.ranks = {pair: rank for rank, pair in enumerate(merges()[1])}

    def score(self, image: Image.Image, prompt: str) -> float:
        return float(self.outputs(image, prompt)[0])

    def outputs(self, image: Image.Image, prompt: str) -> Tensor:
        """mu and log sigma."""
        patches, rows, columns = self.patches(image)
        seen = self.seen(patches, rows, columns)
        text = (
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
            + "<|image_pad|>" * len(seen)
            + "<|vision_end|>"
            + INSTRUCTION.format(text_prompt=prompt)
            + "<|Reward|>\n\nEND\n<|im_end|>\n<|im_start|>assistant\n"
        )
        ids = torch.tensor(self.ids(text))
        states = self.weights["model.embed_tokens.weight"][ids]
        states[ids == self.known["<|image_pad|>"]] = seen
        states = self.read(states)
        (place,) = (ids == self.known[REWARD]).nonzero()[:, 0].tolist()
        first = (self.linear("rm_head.0", states[place])).clamp(min=0)
        return self.linear("rm_head.5", self.linear("rm_head.3", first).clamp(min=0))

    def ids(self, text: str) -> list[int]:
        """Byte-pair encoding by its definition, around the special tokens."""
        names, found = byte_names(), []
        for part in regex.split("(" + "|".join(regex.escape(name) for name in [*SPECIAL, REWARD]) + ")", text):
            if part in self.known and part.startswith("<|"):
                found.append(self.known[part])
                continue
            for word in regex.findall(WORDS, part):
                pieces = [names[byte] for byte in word.encode()]
                while pairs := [pair for pair in pairwise(pieces) if pair in self.ranks]:
                    best = min(pairs, key=self.ranks.__getitem__)
                    place = 0
                    while place < len(pieces) - 1:
                        if (pieces[place], pieces[place + 1]) == best:
                            pieces[place : place + 2] = ["".join(best)]
                        place += 1
                found += [self.known[piece] for piece in pieces]
        return found

    def patches(self, image: Image.Image) -> tuple[Tensor, int, int]:
        """(N, 3 * 2 * 14 * 14) in the order of merging, and rows and columns of patches."""
        width, height = image.size
        square = PATCH * MERGE
        tall, wide = (max(square, round(side / square) * square) for side in (height, width))
        if tall * wide > AREA:
            beta = math.sqrt(height * width / AREA)
            tall, wide = (math.floor(side / beta / square) * square for side in (height, width))
        elif tall * wide < AREA:
            beta = math.sqrt(AREA / (height * width))
            tall, wide = (math.ceil(side * beta / square) * square for side in (height, width))
        image = image.convert("RGB").resize(
            (wide, height), Image.Resampling.BICUBIC
        )  # the width first: Pillow before 13
        bytes_of = np.asarray(image.resize((wide, tall), Image.Resampling.BICUBIC))
        pixels = normalised(bytes_of / 255.0)
        cut = [
            pixels[:, top : top + PATCH, left : left + PATCH]
            for first_row in range(0, tall, square)
            for first_column in range(0, wide, square)
            for top in (first_row, first_row + PATCH)
            for left in (first_column, first_column + PATCH)
        ]
        frames = [torch.stack([patch, patch], 1).flatten() for patch in cut]
        return torch.stack(frames), tall // PATCH, wide // PATCH

    def seen(self, patches: Tensor, rows: int, columns: int) -> Tensor:
        """What the vision tower gives, one row for each square of patches."""
        w = self.weights
        hidden = patches @ w["visual.patch_embed.proj.weight"].flatten(1).T
        places = [
            (row, column)
            for first_row in range(0, rows, MERGE)
            for first_column in range(0, columns, MERGE)
            for row in range(first_row, first_row + MERGE)
            for column in range(first_column, first_column + MERGE)
        ]
        size = VISION_WIDTH // VISION_HEADS
        frequencies = rounded(1.0 / 10000.0 ** (torch.arange(0, size // 2, 2) / (size // 2)))
        angles = rounded((torch.tensor(places)[:, :, None] * frequencies).flatten(1))
        cos, sin = (rounded(part).repeat(1, 2) for part in (angles.cos(), angles.sin()))
        for at in (f"visual.blocks.{index}" for index in range(VISION_DEPTH)):
            given = self.normed(f"{at}.norm1", hidden)
            parts = self.linear(f"{at}.attn.qkv", given).view(len(hidden), 3, VISION_HEADS, size).permute(1, 2, 0, 3)
            query, key = (turned(part, cos, sin) for part in parts[:2])
            shares = softmax(query @ key.transpose(1, 2) / math.sqrt(size), -1)
            hidden = hidden + self.linear(f"{at}.attn.proj", (shares @ parts[2]).transpose(0, 1).flatten(1))
            inner = self.linear(f"{at}.mlp.fc1", self.normed(f"{at}.norm2", hidden))
            hidden = hidden + self.linear(f"{at}.mlp.fc2", inner * torch.sigmoid(1.702 * inner))
        merged = self.normed("visual.merger.ln_q", hidden).view(-1, MERGE * MERGE * VISION_WIDTH)
        return self.linear("visual.merger.mlp.2", gelu(self.linear("visual.merger.mlp.0", merged)))

    def read(self, hidden: Tensor) -> Tensor:
        """What the language model makes of embedded tokens (L, W)."""
        length, size = len(hidden), WIDTH // HEADS
        frequencies = rounded(1.0 / THETA ** (torch.arange(0, size, 2) / size))
        angles = (torch.arange(length)[:, None] * frequencies).double().repeat(1, 2)
        cos, sin = angles.cos(), angles.sin()
        future = torch.full((length, length), -math.inf, dtype=torch.float64).triu(1)
        for at in (f"model.layers.{index}" for index in range(DEPTH)):
            given = self.scaled(f"{at}.input_layernorm", hidden)
            query, key, value = (
                self.linear(f"{at}.self_attn.{part}_proj", given).view(length, -1, size).transpose(0, 1)
                for part in "qkv"
            )
            query, key = turned(query, cos, sin), turned(key, cos, sin)
            groups = HEADS // KEY_HEADS
            heads = [
                softmax(query[head] @ key[head // groups].T / math.sqrt(size) + future, -1) @ value[head // groups]
                for head in range(HEADS)
            ]
            hidden = hidden + torch.cat(heads, 1) @ self.weights[f"{at}.self_attn.o_proj.weight"].T
            given = self.scaled(f"{at}.post_attention_layernorm", hidden)
            gate, up, down = (self.weights[f"{at}.mlp.{part}_proj.weight"].T for part in ("gate", "up", "down"))
            hidden = hidden + (silu(given @ gate) * (given @ up)) @ down
        return self.scaled("model.norm", hidden)

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def normed(self, name: str, x: Tensor) -> Tensor:
        return layer_norm(x, x.shape[-1:], self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], 1e-6)

    def scaled(self, name: str, x: Tensor) -> Tensor:
        return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * self.weights[f"{name}.weight"]


def rounded(values: Tensor) -> Tensor:
    """To bfloat16, as the original's tables are."""
    return values.float().bfloat16().float()


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding: the first half of the channels with the second."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin
