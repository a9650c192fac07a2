"""CLIP as a scorer: loading it, prompts as token ids, and a reward from the cosine of image and prompt.

A :class:`ClipRecipe` says what the rewards of this kind differ in.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from seedpo.documents import read_json
from seedpo.errors import DataError
from seedpo.files import require_regular
from seedpo.protocols import Images
from seedpo.rewards.checkpoints import located
from seedpo.rewards.networks import RewardNetwork, on_meta
from seedpo.rewards.preprocessing import clip_pixels
from seedpo.rewards.scoring import BATCH_SIZE, score_in_batches
from seedpo.weights import align

CLIP_H14: Mapping[str, Any] = {
    "projection_dim": 1024,
    "text_config": {
        "hidden_act": "gelu",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "max_position_embeddings": 77,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "projection_dim": 1024,
        "vocab_size": 49408,
    },
    "vision_config": {
        "hidden_act": "gelu",
        "hidden_size": 1280,
        "image_size": 224,
        "intermediate_size": 5120,
        "num_attention_heads": 16,
        "num_hidden_layers": 32,
        "patch_size": 14,
        "projection_dim": 1024,
    },
}
"""Configuration of CLIP-H/14, as of PickScore."""

CLIP_L14: Mapping[str, Any] = {
    "model_type": "clip",
    "projection_dim": 768,
    "text_config": {
        "hidden_act": "quick_gelu",
        "hidden_size": 768,
        "intermediate_size": 3072,
        "max_position_embeddings": 77,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "projection_dim": 768,
        "vocab_size": 49408,
    },
    "vision_config": {
        "hidden_act": "quick_gelu",
        "hidden_size": 1024,
        "image_size": 224,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
        "projection_dim": 768,
    },
}
"""Configuration of OpenAI's CLIP-L/14."""

CLIP_FILES = ("config.json", "model*.safetensors*")
"""Files of a CLIP in transformers' format; large ones are in several files, with an index."""

TOKENIZER_FILES = ("tokenizer.json", "vocab.json")
"""A tokenizer's folder holds at least one of these files."""

TOKENIZER_PARTS = ("*token*.json", "vocab.json", "merges.txt")
"""Files that are downloaded for a tokenizer."""

CLIP_L = "openai/clip-vit-large-patch14"
"""OpenAI's CLIP-L/14 on the hub, with its tokenizer."""

CLIP_H = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
"""The tokenizer of CLIP-H on the hub; PickScore and HPSv2 use the same."""

Tokens = Callable[[CLIPTokenizer, str, int], dict[str, Tensor]]
"""From a tokenizer, a prompt and a length to the arguments of the text tower, each (1, length)."""


def transformers_tokens(tokenizer: CLIPTokenizer, prompt: str, length: int) -> dict[str, Tensor]:
    """Token ids and mask as transformers' CLIPProcessor makes them; a long prompt is cut before the end token."""
    return dict(tokenizer([prompt], padding="max_length", max_length=length, truncation=True, return_tensors="pt"))


def open_clip_tokens(tokenizer: CLIPTokenizer, prompt: str, length: int) -> dict[str, Tensor]:
    """Token ids as open_clip's ``tokenize`` makes them: clean text, zeros after the end, cut before the end token."""
    words = tokenizer(clean_prompt(prompt), add_special_tokens=False, truncation=True, max_length=length - 2).input_ids
    ids = torch.zeros(1, length, dtype=torch.int64)
    ids[0, : len(words) + 2] = torch.tensor([tokenizer.bos_token_id, *words, tokenizer.eos_token_id])
    return {"input_ids": ids}


def clean_prompt(prompt: str) -> str:
    """A prompt as open_clip and OpenAI clean it: HTML entities resolved, white space collapsed, lower case.

    They also fix broken encodings with ``ftfy``. This function does so where that package is installed.
    """
    text = import_module("ftfy").fix_text(prompt) if find_spec("ftfy") else prompt
    return re.sub(r"\s+", " ", html.unescape(html.unescape(text))).strip().lower()


Encoding = TypeVar("Encoding")


class PromptTable(Generic[Encoding]):
    """Looks up the encoding of a prompt; each prompt is encoded once, by itself.

    In a batch an embedding would round differently with the other prompts. A resumed run, which embeds anew, would then
    continue with other scores.

    Args:
        encode: the encoding of a prompt.
    """

    def __init__(self, encode: Callable[[str], Encoding]) -> None:
        self._encode = encode
        self._rows: dict[str, Encoding] = {}

    def each(self, prompts: Sequence[str]) -> list[Encoding]:
        """Encodings of B prompts."""
        for prompt in prompts:
            if prompt not in self._rows:
                self._rows[prompt] = self._encode(prompt)
        return [self._rows[prompt] for prompt in prompts]

    def of(self: PromptTable[Tensor], prompts: Sequence[str]) -> Tensor:
        """Encodings (B, D) of B prompts, which are (D,) each."""
        return torch.stack(self.each(prompts))

    def clear(self) -> None:
        """Forgets all encodings, as when the model moves to another device."""
        self._rows.clear()


@dataclass(frozen=True, kw_only=True)
class ClipRecipe:
    """How a score is made with a CLIP.

    Attributes:
        pixels: from images (B, 3, H, W) uint8 and a size to normalised images (B, 3, size, size) float32.
        tokens: makes the arguments of the text tower.
        score: from cosines (B,) and the model's logit scale () to scores (B,).
    """

    pixels: Callable[[Tensor, int], Tensor]
    tokens: Tokens
    score: Callable[[Tensor, Tensor], Tensor]


SCALED_COSINE = ClipRecipe(
    pixels=partial(clip_pixels, crop="transformers"),
    tokens=transformers_tokens,
    score=lambda cosine, logit_scale: logit_scale.exp() * cosine,
)
"""exp(logit_scale) cos(image, prompt), prepared by transformers: PickScore."""

PLAIN_COSINE = replace(SCALED_COSINE, score=lambda cosine, _: cosine)
"""cos(image, prompt), prepared by transformers."""


class ClipScorer:
    """A reward from a CLIP.

    Cosines are float32 in every precision of the network. Each prompt is embedded once.

    Args:
        model: the network.
        tokenizer: its tokenizer.
        recipe: how images and prompts are prepared, and how a cosine becomes a score.
        weights: of the coordinates of both embeddings in their cosine, (D,): it becomes sum_i w_i e_i c_i. `None`
            weighs them equally.
        batch_size: most images that the network sees at once.
    """

    def __init__(
        self,
        model: CLIPModel,
        tokenizer: CLIPTokenizer,
        recipe: ClipRecipe = SCALED_COSINE,
        *,
        weights: Tensor | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.recipe = recipe
        self.weights = weights
        self.batch_size = batch_size
        self._text = PromptTable(self._embed)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Moves the network to a device and to a number format; `None` leaves it as it is."""
        self.model.to(device=device, dtype=dtype)
        self._text.clear()
        return self

    def __call__(self, images: Images, prompts: Sequence[str]) -> Tensor:
        """Scores (B,) float32, on the network's device, of images (B, 3, H, W) in [0, 1] or B PIL images.

        Raises:
            DataError: if the counts differ, or an element is not an image.
        """
        return score_in_batches(images, prompts, self._score, batch_size=self.batch_size, device=self.model.device)

    def _score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        products = self.products(images, prompts)
        weighted = products if self.weights is None else products * self.weights.to(products)
        return self.recipe.score(weighted.sum(-1), self.model.logit_scale.float())

    def products(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Terms e_i c_i (b, D) of the cosines of images (b, 3, H, W) uint8, on the network's device, and prompts."""
        pixels = self.recipe.pixels(images, self.model.config.vision_config.image_size)
        return image_embeds(self.model, pixels) * self._text.of(prompts)

    def _embed(self, prompt: str) -> Tensor:
        length = self.model.config.text_config.max_position_embeddings
        tokens = self.recipe.tokens(self.tokenizer, prompt, length)
        inputs = {name: ids.to(self.model.device) for name, ids in tokens.items()}
        pooled = self.model.text_model(**inputs).pooler_output
        return nn.functional.normalize(self.model.text_projection(pooled).float(), dim=-1)[0]


def image_embeds(model: CLIPModel, pixels: Tensor) -> Tensor:
    """Normalised embeddings (B, D) float32 of normalised images (B, 3, S, S)."""
    pooled = model.vision_model(pixel_values=pixels.to(model.dtype)).pooler_output
    return nn.functional.normalize(model.visual_projection(pooled).float(), dim=-1)


def load_clip(
    name: str,
    folder: Path,
    *,
    kind: str = "reward",
    network: type[CLIPModel] = CLIPModel,
    as_what: str = "a CLIP preference model",
) -> Any:
    """Loads a CLIP in transformers' format, as float32, from safetensors.

    Args:
        name: what the user named, for errors.
        folder: where it is.
        kind: what it is, for errors.
        network: the class of the model.
        as_what: what the folder should hold, for errors.

    Raises:
        DataError: if the folder does not hold one, or weights are missing.
    """
    try:
        require_regular(folder)
        model, report = network.from_pretrained(folder, use_safetensors=True, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise DataError(f"{kind} {name} cannot be loaded as {as_what}: {' '.join(str(error).split())}") from error
    if report["missing_keys"]:
        raise DataError(f"{kind} {name} lacks weights, for example {min(report['missing_keys'])!r}; copy it again")
    return align(model.float())


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a CLIP's tokenizer; without its files transformers would make one that knows no word."""
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def clip_tokenizer(name: str, folder: Path, *, repository: str | None, kind: str = "reward") -> CLIPTokenizer:
    """The tokenizer beside the weights, or else the hub's.

    Args:
        name: what the user named, for errors.
        folder: where its weights are.
        repository: on the hub; `None` if the tokenizer must be in the folder.
        kind: what it is, for errors.

    Raises:
        DataError: if there is no tokenizer, or it cannot be read.
    """
    if not has_tokenizer(folder):
        if repository is None:
            raise DataError(f"{kind} {name} has no tokenizer: {folder} has none of {', '.join(TOKENIZER_FILES)}")
        folder = located(name, None, repository=repository, files=["vocab.json"], optional=TOKENIZER_PARTS)
    try:
        require_regular(folder)
        return CLIPTokenizer.from_pretrained(folder)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{kind} {name}: the tokenizer in {folder} cannot be read ({reason}); copy it again") from error


def read_configuration(place: Path) -> dict[str, Any]:
    """The content of a ``config.json``.

    Raises:
        DataError: if it cannot be read or is not a JSON object.
    """
    try:
        content = read_json(place)
    except (OSError, ValueError) as error:
        raise DataError(f"{place} cannot be read as JSON ({error}); copy it again") from error
    if not isinstance(content, dict):
        raise DataError(f"{place} must hold a JSON object; copy it again")
    return content


def is_step_aware(configuration: Mapping[str, Any]) -> bool:
    """Whether a configuration is that of a :class:`seedpo.rewards.step_aware_clip.StepAwareCLIP`."""
    return "StepAwareCLIP" in (configuration.get("architectures") or [])


def configuration_at(place: str | None, default: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration of a CLIP in a folder, or a default where no folder with one is named.

    Raises:
        DataError: if the file cannot be read.
    """
    file = None if place is None else Path(place) / "config.json"
    return read_configuration(file) if file is not None and file.is_file() else default


def clip_network(configuration: Mapping[str, Any]) -> RewardNetwork:
    """A CLIP that embeds images and prompts apart, without weights."""
    network = on_meta(lambda: CLIPModel(CLIPConfig(**configuration)))
    return RewardNetwork(
        network=network,
        images=lambda count: network.get_image_features(pixel_values=no_pixels(network, count)),
        prompts=lambda count: network.get_text_features(input_ids=no_tokens(network, count)),
    )


def no_pixels(clip: CLIPModel, count: int) -> Tensor:
    """Prepared images of a CLIP on the device ``meta``, (count, 3, S, S)."""
    size = clip.config.vision_config.image_size
    return torch.empty(count, 3, size, size, device="meta", dtype=clip.dtype)


def no_tokens(clip: CLIPModel, count: int) -> Tensor:
    """Token ids of prompts on the device ``meta``, (count, L)."""
    length = clip.config.text_config.max_position_embeddings
    return torch.zeros(count, length, dtype=torch.int64, device="meta")
