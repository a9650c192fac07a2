"""Human Preference Score v3 (arXiv 2508.03789): Qwen2-VL-7B that reads an instruction, an image and its prompt.

    h = hidden state of the token <|Reward|>, after "Please provide the overall ratings of this image: "
    (mu, log sigma) = head(h)
    score = mu

The published file ``HPSv3.safetensors`` is read into the parts of the maintained class
:class:`transformers.Qwen2VLModel`. Neither the package ``hpsv3`` nor torchvision is needed. What decides a score:

* An image is resized to about 200704 pixels, 256 tokens, by Pillow's bicubic filter, larger or smaller as it may be.
* Tokens are numbered 0, 1, 2, ... for rotary embeddings, those of the image too. The authors' class passes no
  positions, and transformers 4.45, on which it was trained, then counts; Qwen2-VL itself would number the image's
  tokens by row and column.
* Frequencies of the rotary embeddings are rounded to bfloat16, in the vision tower the angles and their cosines too.
  The authors' code casts the whole network, these tables among it, in training as in use.
* The head computes in float32, whatever the network does.

Attention is causal. What follows ``<|Reward|>`` in the authors' conversation cannot reach the score, and is left out;
so are padded places, which stand on the right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import Qwen2Tokenizer, Qwen2VLConfig, Qwen2VLModel

from seedpo.errors import DataError
from seedpo.files import require_regular
from seedpo.protocols import Images
from seedpo.rewards.checkpoints import check_tokens, fill, located
from seedpo.rewards.clip import TOKENIZER_PARTS, configuration_at, has_tokenizer
from seedpo.rewards.networks import RewardNetwork, on_meta
from seedpo.rewards.preprocessing import pil_resize, qwen2_vl_patches, qwen2_vl_size
from seedpo.rewards.scoring import score_in_batches
from seedpo.weights import read_weights

NAME = "hpsv3"

REPOSITORY = "MizzenAI/HPSv3"
"""Of the weights on the hub."""

WEIGHTS = "HPSv3.safetensors"

BASE = "Qwen/Qwen2-VL-7B-Instruct"
"""Whose tokenizer and sizes the published model has."""

REWARD_TOKEN = "<|Reward|>"
"""Added to the tokenizer; the score is read where it stands."""

AREA = 256 * 28 * 28
"""Pixels of an image as the network sees it."""

MOST_STRETCHED = 200
"""The longer side of an image over its shorter one, at most."""

HEAD_WIDTHS = (1024, 16, 2)
"""Of the head's layers: the last one gives mu and log sigma."""

BATCH_SIZE = 8
"""Most images that the network sees at once."""

INSTRUCTION = (Path(__file__).parent / "hpsv3_instruction.txt").read_bytes().decode()
"""What the model is asked, up to the reward's token; from the package hpsv3 1.0.0 (MIT, see the licence beside it)."""

BEFORE_IMAGE = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
AFTER_IMAGE = "<|vision_end|>"
"""Of Qwen2-VL's conversation."""

QWEN2_VL_7B: Mapping[str, Any] = {
    "model_type": "qwen2_vl",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "max_position_embeddings": 32768,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-6,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "rope_theta": 1000000.0,
    "vocab_size": 151658,
    "vision_config": {
        "depth": 32,
        "embed_dim": 1280,
        "hidden_size": 3584,
        "in_channels": 3,
        "mlp_ratio": 4,
        "num_heads": 16,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
}
"""Configuration of Qwen2-VL-7B, with the vocabulary of the published weights."""

_UNUSED = ("lm_head.*",)
"""Tensors of the file that the score does not depend on."""

_UNFIT = (KeyError, TypeError, ValueError, AttributeError, RuntimeError, ZeroDivisionError)
"""What a network raises that a configuration does not describe."""

_VISION_BASE = 10000.0
"""Of the vision tower's rotary embedding."""


def rounded_frequencies(base: float, width: int, device: torch.device) -> Tensor:
    """base^(-2 i / width) for i = 0, ..., width / 2 - 1, in bfloat16, as the authors' code keeps them."""
    exponents = torch.arange(0, width, 2, dtype=torch.float32, device=device) / width
    return (1.0 / base**exponents).bfloat16()


class CountedPositions(nn.Module):
    """The rotary embedding of the language model.

    Args:
        base: of the frequencies.
        width: of an attention head.
    """

    def __init__(self, base: float, width: int) -> None:
        super().__init__()
        self.base = base
        self.width = width

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines (B, L, width) in the type of x; position_ids (3, B, L) are three times the same."""
        frequencies = rounded_frequencies(self.base, self.width, x.device).float()
        angles = (position_ids[0, :, :, None].float() * frequencies).repeat(1, 1, 2)
        return angles.cos().to(x.dtype), angles.sin().to(x.dtype)


class RoundedPlaces(nn.Module):
    """The rotary embedding of the vision tower: half of a head's channels for the row, half for the column.

    Args:
        width: of an attention head.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines (N, width) float32, of patches at rows and columns (N, 2)."""
        frequencies = rounded_frequencies(_VISION_BASE, self.width // 2, x.device)
        places = position_ids.to(x.device).bfloat16()
        angles = (places[:, :, None] * frequencies).flatten(1).repeat(1, 2)
        return angles.cos().float(), angles.sin().float()


class HPSv3Network(nn.Module):
    """The network of HPSv3: Qwen2-VL's vision tower and language model, and the head, by their published names.

    Args:
        config: of Qwen2-VL.
    """

    def __init__(self, config: Qwen2VLConfig) -> None:
        super().__init__()
        text, vision = config.text_config, config.vision_config
        trunk = Qwen2VLModel(config)
        self.visual, self.model = trunk.visual, trunk.language_model
        self.visual.rotary_pos_emb = RoundedPlaces(vision.embed_dim // vision.num_heads)
        self.model.rotary_emb = CountedPositions(
            text.rope_parameters["rope_theta"], text.hidden_size // text.num_attention_heads
        )
        first, middle, last = (nn.Linear(*widths) for widths in pairwise((text.hidden_size, *HEAD_WIDTHS)))
        self.rm_head = nn.Sequential(first, nn.ReLU(), nn.Identity(), middle, nn.ReLU(), last)  # dropout in its place

    def trunk_to(self, dtype: torch.dtype | None) -> None:
        """Changes the number format of all but the head; `None` leaves it as it is."""
        for part in (self.visual, self.model):
            nn.Module.to(part, dtype)

    def forward(self, images: Tensor, before: Tensor, after: Tensor, ends: Tensor) -> Tensor:
        """Mu and log sigma (B, 2) float32.

        Args:
            images: (B, 3, H, W) uint8, of a size as :func:`seedpo.rewards.preprocessing.qwen2_vl_size` gives it.
            before: token ids in front of the image, (M,).
            after: token ids behind it, (B, L), padded on the right.
            ends: where in ``after`` the reward's token stands, (B,).
        """
        vision, words = self.visual.config, self.model.embed_tokens
        patches = qwen2_vl_patches(
            images, patch=vision.patch_size, merge=vision.spatial_merge_size, frames=vision.temporal_patch_size
        )
        height, width = (side // vision.patch_size for side in images.shape[-2:])
        grid = torch.tensor([[1, height, width]]).repeat(len(images), 1)  # on the CPU: its values are looked at
        seen = self.visual(patches.to(words.weight.dtype), grid_thw=grid).pooler_output
        parts = (words(before).expand(len(images), -1, -1), seen.unflatten(0, (len(images), -1)), words(after))
        hidden = self.model(inputs_embeds=torch.cat(parts, 1), use_cache=False).last_hidden_state
        last = hidden[torch.arange(len(images), device=hidden.device), ends - after.shape[1]]
        logits: Tensor = self.rm_head(last.to(self.rm_head[0].weight.dtype)).float()
        return logits


def network_of(weights: Mapping[str, Tensor], configuration: Mapping[str, Any], *, origin: str | Path) -> HPSv3Network:
    """The network that published weights belong to; the trunk has their number format, the head float32.

    Args:
        weights: by their published names.
        configuration: content of Qwen2-VL's ``config.json``; the size of the vocabulary is that of the weights.
        origin: of the weights, for errors.

    Raises:
        DataError: if tensors are missing, unknown, or of another shape, or the configuration is of another model.
    """
    words = weights.get("model.embed_tokens.weight")
    if words is None or words.dim() != 2:
        raise DataError(f"{origin} lacks model.embed_tokens.weight; is it {WEIGHTS} as published?")
    network = _without_weights({**configuration, "vocab_size": len(words)}, origin=origin)
    network.trunk_to(words.dtype)
    fill(network, weights, origin=origin, ignored=_UNUSED)
    return network


class HPSv3:
    """HPSv3 as a reward.

    Args:
        network: the network.
        tokenizer: Qwen2-VL's; the reward's token is added here, if it is not there yet.
        batch_size: most images that the network sees at once.

    Raises:
        DataError: if the tokenizer has more tokens than the network knows.
    """

    def __init__(self, network: HPSv3Network, tokenizer: Qwen2Tokenizer, *, batch_size: int = BATCH_SIZE) -> None:
        tokenizer.add_tokens([REWARD_TOKEN], special_tokens=True)
        check_tokens(tokenizer, network.model.config.vocab_size, reward=NAME, needs=f"{BASE}'s")
        self.network = network
        self.tokenizer = tokenizer
        self.batch_size = batch_size

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Moves the network to a device, or changes the type in which its trunk computes."""
        self.network.to(device=device)
        self.network.trunk_to(dtype)
        return self

    def __call__(self, images: Images, prompts: Sequence[str]) -> Tensor:
        """Scores (B,) float32 of images (B, 3, H, W) in [0, 1], or of PIL images, each with its prompt.

        Prompts are never cut.

        Raises:
            DataError: if the counts differ, or an element is not an image, or one is too narrow.
        """
        return score_in_batches(images, prompts, self._score, batch_size=self.batch_size, device=self.device)

    def _score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        height, width = images.shape[-2:]
        if max(height, width) > MOST_STRETCHED * min(height, width):
            raise DataError(
                f"{NAME} reads no images of {width} x {height} pixels; crop them to at most {MOST_STRETCHED} times as "
                "long as wide"
            )
        resized = pil_resize(images, qwen2_vl_size(height, width, area=AREA, factor=self._square))
        texts = [self._ids(AFTER_IMAGE + INSTRUCTION.format(text_prompt=prompt) + REWARD_TOKEN) for prompt in prompts]
        ends = torch.tensor([len(ids) - 1 for ids in texts], device=self.device)
        after = pad_sequence(texts, batch_first=True).to(self.device)
        logits: Tensor = self.network(resized, self._ids(BEFORE_IMAGE).to(self.device), after, ends)
        return logits[:, 0]

    @property
    def _square(self) -> int:
        return square_of(self.network)

    def _ids(self, text: str) -> Tensor:
        return torch.tensor(self.tokenizer(text, add_special_tokens=False).input_ids)


def square_of(network: HPSv3Network) -> int:
    """Side of the squares that become tokens, in pixels."""
    vision: Any = network.visual.config
    return int(vision.patch_size * vision.spatial_merge_size)


@cache
def hpsv3(place: str | None = None) -> HPSv3:
    """HPSv3, loaded once per process; about 16.6 GB from the hub without a place.

    Args:
        place: folder with ``HPSv3.safetensors`` and, optionally, Qwen2-VL's ``config.json`` and tokenizer; or
            ``owner/name[@revision]`` on the hub.

    Raises:
        DataError: if it cannot be loaded; the message names files or tensors.
    """
    optional = ["config.json", *TOKENIZER_PARTS]
    folder = located(NAME, place, repository=REPOSITORY, files=[WEIGHTS], optional=optional)
    configuration = configuration_at(str(folder), QWEN2_VL_7B)
    network = network_of(read_weights(folder / WEIGHTS), configuration, origin=folder / WEIGHTS)
    return HPSv3(network.eval().requires_grad_(False), _tokenizer(folder))


def hpsv3_network(place: str | None = None) -> RewardNetwork:
    """HPSv3 without weights; images count as squares, texts as an empty prompt of four letters a token."""
    configuration = configuration_at(place, QWEN2_VL_7B)
    network = on_meta(lambda: _without_weights(configuration, origin=place or NAME))
    side, _ = qwen2_vl_size(1024, 1024, area=AREA, factor=square_of(network))

    def score(count: int) -> Tensor:
        pixels = torch.empty(count, 3, side, side, device="meta", dtype=torch.uint8)
        before, after = (
            torch.zeros(*shape, device="meta", dtype=torch.int64)
            for shape in ((len(BEFORE_IMAGE) // 4,), (count, len(INSTRUCTION) // 4))
        )
        logits: Tensor = network(pixels, before, after, torch.zeros(count, device="meta", dtype=torch.int64))
        return logits

    return RewardNetwork(network=network, images=score)


def _without_weights(configuration: Mapping[str, Any], *, origin: str | Path) -> HPSv3Network:
    if configuration.get("model_type") != "qwen2_vl":
        raise DataError(f"{origin}: config.json is not that of a qwen2_vl; copy that of {BASE} beside the weights")
    try:
        with torch.device("meta"):  # no time is spent on random weights
            return HPSv3Network(Qwen2VLConfig(**configuration))
    except (*_UNFIT, StrictDataclassError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{origin}: config.json does not describe a Qwen2-VL ({reason}); copy that of {BASE}"
        ) from error


def _tokenizer(folder: Path) -> Qwen2Tokenizer:
    """The tokenizer beside the weights, or else the hub's."""
    if not has_tokenizer(folder):
        folder = located(NAME, None, repository=BASE, files=["vocab.json"], optional=TOKENIZER_PARTS)
    try:
        require_regular(folder)
        return Qwen2Tokenizer.from_pretrained(folder)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"the tokenizer in {folder} cannot be read ({reason}); copy that of {BASE}") from error
