"""ImageReward (arXiv 2304.05977): a BLIP that reads prompt and image together, and a small head on its first token.

    h = text tower([CLS] prompt [SEP]; cross attention to the image's patches)[0]
    score = (head(h) - 0.16717362830052426) / 1.0333394966054072

``ImageReward.pt`` is read as published and mapped to the maintained classes :class:`transformers.BlipVisionModel` and
:class:`transformers.BlipTextModel`, which compute what the original's ``vit.py`` and ``med.py`` do, with these
differences, none of which changes a score:

* Their layer norm in the vision tower has eps = 1e-5 by default; here it is set to the original's 1e-6.
* Padded tokens are masked by the least number of the type instead of by -10000; both are 0 after the softmax.
* In transformers 5 the text tower ignores a mask of the image's patches. The original's is all ones: none is passed.

The head is linear throughout, as published: between its layers is nothing but dropout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import BertTokenizer, BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

from seedpo.errors import DataError
from seedpo.files import require_regular
from seedpo.protocols import Images
from seedpo.rewards.checkpoints import check_tokens, fill, located
from seedpo.rewards.clip import PromptTable, read_configuration
from seedpo.rewards.networks import RewardNetwork, on_meta
from seedpo.rewards.preprocessing import clip_pixels
from seedpo.rewards.scoring import score_in_batches
from seedpo.weights import read_weights

REPOSITORY = "THUDM/ImageReward"
"""Of the weights on the hub."""

WEIGHTS, TEXT_CONFIG = "ImageReward.pt", "med_config.json"

TOKENIZER = "google-bert/bert-base-uncased"
"""Of the original's tokenizer on the hub."""

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")
"""Files of a tokenizer; the last one is enough."""

MAX_TOKENS = 35
"""Length of prompts, cut or padded, in tokens."""

MEAN, DEVIATION = 0.16717362830052426, 1.0333394966054072
"""Of the head's output over the original's training set."""

HEAD_WIDTHS = (1024, 128, 64, 16, 1)
"""Of the head's layers."""

HEAD_WIDTH = 64
"""Width of an attention head of BLIP's vision towers; the weights do not show it."""

VISION_EPS = 1e-6

_VISION_NAMES = (
    ("embeddings.class_embedding", "cls_token"),
    ("embeddings.position_embedding", "pos_embed"),
    ("embeddings.patch_embedding", "patch_embed.proj"),
    ("encoder.layers", "blocks"),
    ("layer_norm", "norm"),
    ("post_layernorm", "norm"),
    ("self_attn.projection", "attn.proj"),
    ("self_attn.qkv", "attn.qkv"),
)
"""Parts of the names of :class:`transformers.BlipVisionModel`, and the published ones."""

_HEAD_LAYERS = ("0", "2", "4", "6", "7")
"""Published numbers of the head's layers, which count dropout."""

_UNUSED = ("blip.vision_proj.*", "blip.text_proj.*", "*position_ids")
"""Tensors of the file that the score does not depend on: BLIP's contrastive heads, and a list of 0, 1, 2, ..."""


class ImageRewardNetwork(nn.Module):
    """The network of ImageReward.

    Args:
        vision: configuration of the vision tower.
        text: configuration of the text tower.
    """

    def __init__(self, vision: BlipVisionConfig, text: BlipTextConfig) -> None:
        super().__init__()
        self.vision = BlipVisionModel(vision)
        self.text = BlipTextModel(text, add_pooling_layer=False)
        widths = (text.hidden_size, *HEAD_WIDTHS)
        self.head = nn.Sequential(*(nn.Linear(before, after) for before, after in pairwise(widths)))

    def forward(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Scores (B,) float32 of normalised images (B, 3, S, S) and token ids (B, L).

        The mask (B, L) is 1 for tokens that count; without one, all do.
        """
        patches = self.vision(pixel_values=pixel_values).last_hidden_state
        tokens = self.text(input_ids=input_ids, attention_mask=attention_mask, encoder_hidden_states=patches)
        raw: Tensor = self.head(tokens.last_hidden_state[:, 0])[:, 0].float()
        return (raw - MEAN) / DEVIATION


def network_of(weights: Mapping[str, Tensor], text: Mapping[str, Any], *, origin: str) -> ImageRewardNetwork:
    """The network that published weights belong to.

    The vision tower's sizes are those of the weights, the text tower's those of the configuration.

    Args:
        weights: by their published names.
        text: content of ``med_config.json``; its ``encoder_width`` is not read, as in the original, which uses the
            vision tower's instead.
        origin: of the weights, for messages.

    Raises:
        DataError: if tensors are missing, unknown, or of another shape.
    """
    vision = _vision_config(weights, origin)
    with torch.device("meta"):  # no time is spent on random weights
        network = ImageRewardNetwork(vision, _text_config(text, vision.hidden_size, origin))
    ours = {published_name(name): name for name in network.state_dict()}
    if missing := sorted(ours.keys() - weights.keys()):
        raise DataError(
            f"{origin} lacks {missing[0]}{f' and {len(missing) - 1} more' if missing[1:] else ''}; "
            f"is it {WEIGHTS} as published, and {TEXT_CONFIG} beside it its own?"
        )
    fill(network, {ours.get(name, name): value for name, value in weights.items()}, origin=origin, ignored=_UNUSED)
    places = network.text.config.max_position_embeddings
    network.text.embeddings.position_ids = torch.arange(places)[None]  # a list of 0, 1, 2, ... that is not stored
    return network.eval().requires_grad_(False)


class ImageReward:
    """ImageReward as a reward.

    Images are prepared as the original's torchvision transforms prepare PIL images: the shorter side resized
    (bicubic), the middle cut out. Prompt and image meet inside the network, so that only the token ids of a prompt
    can be kept. 1.033 times the difference of two scores of one prompt is in log-odds of being preferred.

    Args:
        network: the network.
        tokenizer: BERT's, lower-casing; the two tokens that BLIP adds to it are added here.

    Raises:
        DataError: if the tokenizer has more tokens than the network knows.
    """

    def __init__(self, network: ImageRewardNetwork, tokenizer: BertTokenizer) -> None:
        tokenizer.add_tokens(["[DEC]", "[ENC]"], special_tokens=True)
        check_tokens(tokenizer, network.text.config.vocab_size, reward="imagereward", needs=TOKENIZER)
        self.network = network
        self.tokenizer = tokenizer
        self._tokens = PromptTable(self._tokenised)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Moves the network to a device, or changes the type in which it computes."""
        self.network.to(device=device, dtype=dtype)
        self._tokens.clear()
        return self

    def __call__(self, images: Images, prompts: Sequence[str]) -> Tensor:
        """Scores (B,) float32 of images (B, 3, H, W) in [0, 1], or of PIL images, each with its prompt.

        Prompts are cut to 35 tokens, [CLS] and [SEP] among them.
        """
        return score_in_batches(images, prompts, self._score, device=self.device)

    def _score(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        config = self.network.vision.config
        prepared = clip_pixels(pixels, config.image_size, crop="torchvision").to(self.network.vision.dtype)
        ids, mask = self._tokens.of(prompts).unbind(1)
        scores: Tensor = self.network(prepared, ids, mask)
        return scores

    def _tokenised(self, prompt: str) -> Tensor:
        """Ids and mask, (2, 35)."""
        encoding = self.tokenizer(
            [prompt], padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        )
        return torch.cat([encoding.input_ids, encoding.attention_mask]).to(self.device)


@cache
def imagereward(place: str | None = None) -> ImageReward:
    """ImageReward v1.0, loaded once per process; 1.8 GB from the hub without a place.

    Args:
        place: folder with ``ImageReward.pt``, ``med_config.json`` and, optionally, the tokenizer of
            bert-base-uncased; or ``owner/name`` on the hub.

    Raises:
        DataError: if it cannot be loaded; the message names files or tensors.
    """
    folder = located(
        "imagereward", place, repository=REPOSITORY, files=[WEIGHTS, TEXT_CONFIG], optional=[*TOKENIZER_FILES]
    )
    origin = str(folder / WEIGHTS)
    network = network_of(read_weights(folder / WEIGHTS), read_configuration(folder / TEXT_CONFIG), origin=origin)
    return ImageReward(network, _tokenizer(folder))


def imagereward_network(place: str | None = None) -> RewardNetwork:
    """ImageReward without weights: BLIP-L as published, wherever its weights are."""
    vision = BlipVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=224,
        patch_size=16,
        layer_norm_eps=VISION_EPS,
    )
    text = BlipTextConfig(encoder_hidden_size=1024, num_attention_heads=12, vocab_size=30524)
    network = on_meta(lambda: ImageRewardNetwork(vision, text))

    def score(count: int) -> Tensor:
        pixels = torch.empty(count, 3, vision.image_size, vision.image_size, device="meta", dtype=network.vision.dtype)
        ids = torch.zeros(count, MAX_TOKENS, dtype=torch.int64, device="meta")
        scores: Tensor = network(pixels, ids, None)  # the tower reads the values of a mask, which are not there
        return scores

    return RewardNetwork(network=network, images=score)


def _tokenizer(folder: Path) -> BertTokenizer:
    """The tokenizer beside the weights, or else the hub's."""
    if not any((folder / file).is_file() for file in ("tokenizer.json", "vocab.txt")):
        folder = located("imagereward", None, repository=TOKENIZER, files=["vocab.txt"], optional=[*TOKENIZER_FILES])
    try:
        require_regular(folder)
        return BertTokenizer.from_pretrained(folder)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"the tokenizer in {folder} cannot be read ({reason}); copy that of {TOKENIZER}") from error


def published_name(name: str) -> str:
    """What a tensor of :class:`ImageRewardNetwork` is called in the published file."""
    part, _, rest = name.partition(".")
    if part == "text":
        return f"blip.text_encoder.{rest}"
    if part == "head":
        layer, _, rest = rest.partition(".")
        return f"mlp.layers.{_HEAD_LAYERS[int(layer)]}.{rest}"
    for ours, published in _VISION_NAMES:
        rest = rest.replace(ours, published)
    return f"blip.visual_encoder.{rest}"


def _vision_config(weights: Mapping[str, Tensor], origin: str) -> BlipVisionConfig:
    """The vision tower's sizes, read off its weights."""
    prefix = "blip.visual_encoder."
    try:
        patch = weights[f"{prefix}patch_embed.proj.weight"].shape[-1]
        _, places, width = weights[f"{prefix}pos_embed"].shape
        inner, _ = weights[f"{prefix}blocks.0.mlp.fc1.weight"].shape
    except KeyError as error:
        raise DataError(f"{origin} lacks {error.args[0]}; is it {WEIGHTS} as published?") from error
    except ValueError as error:
        raise DataError(
            f"{origin} does not hold BLIP's vision tower ({error}); is it {WEIGHTS} as published?"
        ) from error
    blocks = {name.split(".")[3] for name in weights if name.startswith(f"{prefix}blocks.")}
    return BlipVisionConfig(
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=len(blocks),
        num_attention_heads=max(1, width // HEAD_WIDTH),
        image_size=patch * round((places - 1) ** 0.5),
        patch_size=patch,
        hidden_act="gelu",
        layer_norm_eps=VISION_EPS,
    )


def _text_config(text: Mapping[str, Any], vision_width: int, origin: str) -> BlipTextConfig:
    sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    try:
        return BlipTextConfig(
            **{name: int(text[name]) for name in sizes},
            max_position_embeddings=int(text["max_position_embeddings"]),
            hidden_act=str(text["hidden_act"]),
            layer_norm_eps=float(text["layer_norm_eps"]),
            pad_token_id=int(text["pad_token_id"]),
            encoder_hidden_size=vision_width,
            is_decoder=True,  # what the class calls a tower with cross attention; its mask stays bidirectional
            bos_token_id=None,
            eos_token_id=None,
            sep_token_id=None,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{TEXT_CONFIG} beside {origin} does not describe BLIP's text tower ({error!r})") from error
