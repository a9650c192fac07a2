"""A CLIP preference model in training, step-aware (SPO) or plain (PickScore), and the CLIP that it starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import CLIPModel, CLIPTokenizer

from seedpo.errors import ConfigError, DataError
from seedpo.protocols import Trainable
from seedpo.rewards.checkpoints import fill, located
from seedpo.rewards.clip import (
    CLIP_FILES,
    CLIP_H,
    TOKENIZER_FILES,
    TOKENIZER_PARTS,
    clip_tokenizer,
    has_tokenizer,
    is_step_aware,
    load_clip,
    read_configuration,
    transformers_tokens,
)
from seedpo.rewards.previews import SeenPairs
from seedpo.rewards.step_aware_clip import StepAwareCLIP
from seedpo.weights import read_weights

WEIGHTS_FILE = "model.safetensors"

KNOWN_PROMPTS = 2**14
"""Size of the cache of tokens, in prompts."""


def recompute(network: Any) -> None:
    """From now on each layer of a model of transformers computes its activations again in the backward pass.

    What the library's method does; its name changed between the versions that are supported.
    """
    for layer in network.modules():
        if hasattr(layer, "gradient_checkpointing"):
            layer.gradient_checkpointing = True
            layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Output of a preference model for B pairs.

    Attributes:
        text: normalised embeddings of the prompts, (B, D).
        images: normalised embeddings of preferred and other images, (B, 2, D).
        scale: exp(logit_scale), ().
    """

    text: Tensor
    images: Tensor
    scale: Tensor

    @property
    def logits(self) -> Tensor:
        """Scores of both images, (B, 2): the scaled cosines with their prompt, in log-odds."""
        return self.scale * (self.images * self.text[:, None]).sum(-1)


class PairModel(Trainable, Protocol):
    """A preference model in training."""

    def compare(self, seen: SeenPairs, prompts: Sequence[str]) -> Comparison:
        """Compares B pairs with their B prompts."""

    def checkpoint_activations(self) -> None:
        """From now on most activations are computed again in the backward pass: less memory, the same gradients."""


class PairNetwork(nn.Module):
    """The two towers in one forward pass, so that a wrapper that exchanges gradients sees all weights.

    Args:
        clip: the preference model.
    """

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.clip = clip

    def forward(
        self, pixels: Tensor, timestep: Tensor | None, input_ids: Tensor, attention_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised embeddings of texts (B, D) and images (N, D), and the scale ().

        Args:
            pixels: prepared images, (N, 3, S, S).
            timestep: of each image, (N,); `None` for a plain model or finished images.
            input_ids: tokens of B prompts, (B, L).
            attention_mask: 1 for tokens that count, (B, L).
        """
        clip = self.clip
        if isinstance(clip, StepAwareCLIP):
            times = torch.zeros(len(pixels), device=pixels.device) if timestep is None else timestep
            images = clip.image_embeds(pixels, times)
        else:
            images = nn.functional.normalize(
                clip.visual_projection(clip.vision_model(pixel_values=pixels).pooler_output), dim=-1
            )
        pooled = clip.text_model(input_ids=input_ids, attention_mask=attention_mask).pooler_output
        return nn.functional.normalize(clip.text_projection(pooled), dim=-1), images, clip.logit_scale.exp()


class PreferenceModel:
    """Trains all weights of a CLIP preference model; saved in the format that rewards are loaded from.

    Args:
        clip: the model, in float32; a :class:`StepAwareCLIP` takes the time step.
        tokenizer: its tokenizer.
    """

    def __init__(self, clip: CLIPModel, tokenizer: CLIPTokenizer) -> None:
        self.clip = clip.requires_grad_(True).train()
        self.tokenizer = tokenizer
        self.module: nn.Module = PairNetwork(clip)
        self._tokens = lru_cache(maxsize=KNOWN_PROMPTS)(self._tokenised)

    @property
    def image_size(self) -> int:
        """Height and width of its images, in pixels."""
        size: int = self.clip.config.vision_config.image_size
        return size

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.clip.logit_scale.device
        return device

    def compare(self, seen: SeenPairs, prompts: Sequence[str]) -> Comparison:
        """Compares B pairs with their B prompts."""
        rows = [self._tokens(prompt) for prompt in prompts]
        ids, mask = (torch.cat(part).to(self.device) for part in zip(*rows, strict=True))
        pixels = seen.pixels.flatten(0, 1).to(self.device)
        timestep = None if seen.timestep is None else seen.timestep.repeat_interleave(2).to(self.device)
        text, images, scale = self.module(pixels, timestep, ids, mask)
        return Comparison(text=text, images=images.view(len(rows), 2, -1), scale=scale)

    def checkpoint_activations(self) -> None:
        """From now on each layer of both towers computes its activations again in the backward pass."""
        recompute(self.clip)

    def _tokenised(self, prompt: str) -> tuple[Tensor, Tensor]:
        inputs = transformers_tokens(self.tokenizer, prompt, self.tokenizer.model_max_length)
        return inputs["input_ids"], inputs["attention_mask"]

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Names and tensors of all weights, in a fixed order."""
        return {name: value for name, value in self.clip.named_parameters() if value.requires_grad}

    def save(self, folder: Path) -> None:
        """Writes configuration, weights and tokenizer in transformers' format."""
        self.clip.save_pretrained(folder, max_shard_size="100GB")
        self.tokenizer.save_pretrained(folder)

    def load(self, folder: Path) -> None:
        """Reads what :meth:`save` wrote into the tensors that are trained.

        Raises:
            DataError: if the file is missing or cut, or its weights are of another model.
        """
        fill(self.clip, read_weights(folder / WEIGHTS_FILE), origin=folder / WEIGHTS_FILE)


def load_start(place: str | Path, *, step_aware: bool, tokenizer: str | None = None, seed: int = 0) -> PreferenceModel:
    """The preference model that training starts from; it scores as the CLIP does.

    A step-aware one is made from a plain CLIP by modulations that are the identity at first; the two layers that embed
    the time step are drawn from a normal distribution of standard deviation 0.02, as in SPO's code.

    Args:
        place: folder, or ``owner/name`` on the hub, of a CLIP in transformers' format.
        step_aware: whether the model takes the time step.
        tokenizer: folder or hub id of the tokenizer, if it is elsewhere.
        seed: seed of the layers that are new.

    Raises:
        ConfigError: if the CLIP is step-aware and a plain model is requested.
        DataError: if there is no CLIP, or no tokenizer.
    """
    name = str(place)
    files = CLIP_FILES[:1] if Path(name).is_dir() else CLIP_FILES
    folder = located(
        name, name, repository=None, files=files, optional=TOKENIZER_PARTS, kind="start =", usage="start=FOLDER"
    )
    words = folder
    if tokenizer is not None:
        words = located(
            tokenizer,
            tokenizer,
            repository=None,
            files=(),
            optional=TOKENIZER_PARTS,
            kind="tokenizer =",
            usage="tokenizer=FOLDER",
        )
    if not has_tokenizer(words):
        raise DataError(
            f"{words} has no tokenizer: none of {', '.join(TOKENIZER_FILES)}; set tokenizer to a folder or hub id, "
            f"for example {CLIP_H}"
        )
    knows_time = is_step_aware(read_configuration(folder / "config.json"))
    if knows_time and not step_aware:
        raise ConfigError(
            f"start = {place} is step-aware, but model = none trains a plain preference model; name the plain CLIP "
            "that it was made from, or a diffusion model"
        )
    network = StepAwareCLIP if knows_time else CLIPModel
    clip = load_clip(name, folder, kind="start =", network=network, as_what="a CLIP")
    tokens = clip_tokenizer(name, words, repository=None, kind="start =")
    return PreferenceModel(made_step_aware(clip, seed=seed) if step_aware and not knows_time else clip, tokens)


def made_step_aware(clip: CLIPModel, *, seed: int) -> StepAwareCLIP:
    """A step-aware CLIP that gives a plain one's embeddings at every time step."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: StepAwareCLIP = StepAwareCLIP(clip.config).float()  # the configuration may say float16
        for layer in model.t_embedder.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.02)
    missing, _ = model.load_state_dict(clip.state_dict(), strict=False)
    if left := [name for name in missing if "t_embedder" not in name and "adaLN_modulation" not in name]:
        raise DataError(f"the CLIP to start from lacks weights, for example {min(left)!r}; copy it again")
    model.reset_modulation()
    return model
