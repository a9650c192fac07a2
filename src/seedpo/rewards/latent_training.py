"""A latent reward model in training (LPO, arXiv 2502.01051, sec. 4.2), and how it sees labelled pairs.

Kept of the published training: the model starts as the diffusion model's own encoder half and text encoder. All of it
is trained. Both images of a pair are noised to one time step, each with noise of its own. The loss is that of other
preference models (:mod:`seedpo.rewards.preference_objective`).

Deviations: time steps are uniform in place of 1, 51, ..., 951; ``text_projection`` starts as the identity in place of
CLIP-L's; latents are the mean of the autoencoder's distribution. Left out: the choice of pairs by three other rewards,
and comparisons of one image at two time steps, which the published models were trained without.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from seedpo.core.draws import KeyedDraws
from seedpo.core.processes import DiffusionProcess
from seedpo.core.sampling import draw_noise
from seedpo.core.types import ImagePairs
from seedpo.errors import ConfigError
from seedpo.models.denoiser import PipelineDenoiser
from seedpo.protocols import Denoiser
from seedpo.rewards.checkpoints import fill
from seedpo.rewards.clip import transformers_tokens
from seedpo.rewards.latent_reward_model import FIRST_TIME, LatentRewardModel
from seedpo.rewards.lrm import STATE_FILES, read_network
from seedpo.rewards.preference_model import KNOWN_PROMPTS, Comparison, recompute
from seedpo.rewards.previews import SeenPairs

_HEADS = ("visual_projection", "text_projection", "logit_scale")


class LatentPairNetwork(nn.Module):
    """All parts in one forward pass, so that a wrapper that exchanges gradients sees all weights.

    Args:
        model: the preference model.
    """

    def __init__(self, model: LatentRewardModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, latents: Tensor, timestep: Tensor, *ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised features of texts (B, D) and latents (2 B, D), and the scale ().

        Args:
            latents: noisy latents of B pairs, (2 B, C, H, W), both of a pair in succession.
            timestep: of each, (2 B,).
            ids: tokens of B prompts and, last, the empty one, (B + 1, L), for each text encoder.
        """
        read = self.model.read(*ids)
        asked, empty = read[:-1], read[-1:]
        features = self.model.features(
            latents, timestep, asked.repeat_interleave(2), empty.repeat_interleave(len(latents))
        )
        return asked.features, features, self.model.logit_scale.exp()


class LatentPreferenceModel:
    """Trains all weights of a latent reward model; saved in the layout that rewards are loaded from.

    Args:
        model: the network, in float32.
        pipeline: whose tokenizers, autoencoder and scheduler it is saved with.
    """

    def __init__(self, model: LatentRewardModel, pipeline: Any) -> None:
        self.model = model.requires_grad_(True).train()
        self.pipeline = pipeline
        self.module: nn.Module = LatentPairNetwork(model)
        self._tokens = lru_cache(maxsize=KNOWN_PROMPTS)(self._tokenised)

    def compare(self, seen: SeenPairs, prompts: Sequence[str]) -> Comparison:
        """Compares B pairs with their B prompts."""
        if seen.timestep is None:
            raise ValueError("noisy latents need a time step")
        device = self.model.device
        rows = [self._tokens(prompt) for prompt in (*prompts, "")]
        ids = [torch.cat(part).to(device) for part in zip(*rows, strict=True)]
        times = seen.timestep.repeat_interleave(2).to(device)
        text, images, scale = self.module(seen.pixels.flatten(0, 1).to(device), times, *ids)
        return Comparison(text=text, images=images.view(len(prompts), 2, -1), scale=scale)

    def checkpoint_activations(self) -> None:
        """From now on blocks of the UNet and layers of text encoders compute activations again in the backward pass."""
        self.model.unet.enable_gradient_checkpointing()
        for encoder in self.model.text_encoders:
            recompute(encoder)

    def _tokenised(self, prompt: str) -> tuple[Tensor, ...]:
        readers = self._tokenizers()
        return tuple(transformers_tokens(one, prompt, one.model_max_length)["input_ids"] for one in readers.values())

    def _tokenizers(self) -> dict[str, Any]:
        names = ("tokenizer", "tokenizer_2")[: len(self.model.text_encoders)]
        return {name: getattr(self.pipeline, name) for name in names}

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Names and tensors of all weights, in a fixed order."""
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}

    def save(self, folder: Path) -> None:
        """Writes the network, and the parts of the base model that it is used with."""
        parts = {"unet": self.model.unet, "text_encoder": self.model.text_encoder}
        if self.model.text_encoder_2 is not None:
            parts["text_encoder_2"] = self.model.text_encoder_2
        used = {name: getattr(self.pipeline, name) for name in ("vae", "scheduler")}
        for name, part in {**parts, **used, **self._tokenizers()}.items():
            part.save_pretrained(folder / name)
        state = {name: value for name, value in self.model.state_dict().items() if name.startswith(_HEADS)}
        save_file({name: value.detach().cpu().contiguous() for name, value in state.items()}, folder / STATE_FILES[0])

    def load(self, folder: Path) -> None:
        """Reads what :meth:`save` wrote into the tensors that are trained.

        Raises:
            DataError: if a file is missing or cut, or its weights are of another model.
        """
        fill(self.model, read_network(folder).state_dict(), origin=folder)


def latent_start(denoiser: PipelineDenoiser, *, seed: int) -> LatentPreferenceModel:
    """The latent reward model that training starts from: parts of a diffusion model, and new projections.

    Args:
        denoiser: a Stable Diffusion 1, 2 or XL; its parts are copied.
        seed: seed of the projection of features, which is drawn with a standard deviation of 0.02.

    Raises:
        ConfigError: if it is of another family.
    """
    pipeline = denoiser.pipeline
    if not isinstance(denoiser.process, DiffusionProcess) or denoiser.family.network != "unet":
        raise ConfigError(
            f"latent = true: a {type(pipeline).__name__} has no UNet with DDPM's noise; name a Stable Diffusion 1, 2 "
            "or XL, or set latent to false"
        )
    encoders = [deepcopy(encoder).float() for encoder in denoiser.family.text_encoders(pipeline)]
    width = encoders[-1].config.projection_dim if len(encoders) == 2 else encoders[0].config.hidden_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LatentRewardModel(
            deepcopy(pipeline.unet).float(), *encoders, width=width, pixels_per_latent=pipeline.vae_scale_factor
        )
        nn.init.normal_(model.visual_projection.weight, std=0.02)
    if model.text_projection is not None:
        nn.init.eye_(model.text_projection.weight)
    return LatentPreferenceModel(model, pipeline)


class NoisyLatents:
    """Pairs as their noisy latents: one time step, and noise of its own for each image.

    Args:
        denoiser: whose process adds the noise.
        timesteps: at which accuracies are measured.
    """

    def __init__(self, denoiser: Denoiser, *, timesteps: Sequence[int]) -> None:
        self.denoiser = denoiser
        self.timesteps: Sequence[int | None] = tuple(timesteps)

    def drawn(self, pairs: ImagePairs, *, generator: torch.Generator) -> SeenPairs:
        """Latents at uniform time steps from 1; drawn in this order: time steps, noise."""
        timestep = torch.randint(FIRST_TIME, self.denoiser.process.embedded_times, (len(pairs),), generator=generator)
        noise = draw_noise((len(pairs), 2, *pairs.chosen_latents.shape[1:]), generator=generator)
        return self.shown(pairs, timestep, noise)

    def at(self, pairs: ImagePairs, timestep: int | None, *, seed: int) -> SeenPairs:
        """Latents at one time step."""
        if pairs.pair is None or timestep is None:
            raise ValueError("noisy latents need a time step, and the numbers of the pairs")
        steps = torch.full((len(pairs),), timestep)
        _, noise = KeyedDraws(seed=seed).timestep_and_noise(
            pairs.pair, steps, process=self.denoiser.process, shape=(2, *pairs.chosen_latents.shape[1:])
        )
        return self.shown(pairs, steps, noise)

    @torch.no_grad()
    def shown(self, pairs: ImagePairs, timestep: Tensor, noise: Tensor) -> SeenPairs:
        """Latents for given time steps (B,) and noise (B, 2, C, H, W); those at time step 0 stay clean."""
        process, device = self.denoiser.process, self.denoiser.device
        clean = torch.stack([pairs.chosen_latents, pairs.rejected_latents], 1).to(device)
        times, noises = timestep.to(device), noise.to(device)
        noisy = process.noisy(
            clean.flatten(0, 1), noises.flatten(0, 1), process.timestep_of(times).repeat_interleave(2)
        ).view_as(clean)
        seen = torch.where((times > 0).view(-1, 1, 1, 1, 1), noisy, clean)
        return SeenPairs(pixels=seen, timestep=times)
