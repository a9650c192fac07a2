"""Scorers of noisy latents, whatever their network: prompts, finished images, and whose latents they read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, Self

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from seedpo.core.flow import FlowProcess
from seedpo.core.processes import DiffusionProcess
from seedpo.errors import DataError
from seedpo.models.denoiser import rows_per_call
from seedpo.models.families import encode_pixels
from seedpo.protocols import Denoiser, Images
from seedpo.rewards.scoring import byte_batches, check_counts

KNOWN_PROMPTS = 512
"""Prompts whose embeddings are kept."""

USUAL_SIZE = 1024
"""Side of images, in pixels, by which those of unknown size are divided into calls."""

_APART = 1e-3
"""Signal levels that differ by more are those of another schedule; scale and shift too, relative to them."""


class LatentModel(Protocol):
    """A network that scores noisy latents."""

    @property
    def device(self) -> torch.device:
        """Where it is."""

    @property
    def image_size(self) -> int | None:
        """Height and width to which finished images are resized, in pixels; ``None``: they keep theirs."""

    def read(self, *ids: Tensor) -> Any:
        """Prompts from token ids (B, L) of each text encoder."""

    def scores(self, latents: Tensor, timestep: Tensor, prompts: Sequence[str], read: Callable[[str], Any]) -> Tensor:
        """Scores (B,) float32 of latents (B, C, H, W) at times (B,), 0 or less if they are clean.

        Args:
            latents: scaled as the policy has them.
            timestep: as the policy's process counts.
            prompts: B.
            read: what :meth:`read` gives for one prompt.
        """


class Latents(Protocol):
    """The latents that a model was trained on."""

    @property
    def channels(self) -> int:
        """Of a latent image."""

    def misfit(self, policy: Denoiser) -> str | None:
        """Why a policy's latents are others, in words; ``None`` if they are the same."""

    def size_misfit(self, height: int, width: int) -> str | None:
        """Why latents of a size cannot be read, in words; ``None`` if they can."""


def _misfit(policy: Denoiser, channels: int, *, scaling_factor: float, shift_factor: float) -> str | None:
    """Why channels, or constants of the autoencoder, are not a policy's; ``None`` if they are."""
    shape = policy.latent_shape
    if len(shape) != 3 or shape[0] != channels:
        size = " x ".join(map(str, shape))
        return f"it reads latents of {channels} channels, and the model's are {size}"
    scale, shift = getattr(policy, "latent_scale", None), getattr(policy, "latent_shift", None)
    for name, own, value in (("scaling_factor", scaling_factor, scale), ("shift_factor", shift_factor, shift)):
        if value is not None and abs(value - own) > _APART * abs(own):
            return f"it reads latents of an autoencoder with {name} {own:g}, and the model's has {value:g}"
    return None


@dataclass(frozen=True, kw_only=True)
class LatentSpace:
    """The latents that a model was trained on.

    Attributes:
        channels: of a latent image.
        scaling_factor: what the autoencoder's latents are multiplied by.
        alphas_cumprod: signal levels of the noise schedule, (T,).
    """

    channels: int
    scaling_factor: float
    alphas_cumprod: Tensor

    def misfit(self, policy: Denoiser) -> str | None:
        """Why a policy's latents are others, in words; ``None`` if they are the same."""
        reason = _misfit(policy, self.channels, scaling_factor=self.scaling_factor, shift_factor=0.0)
        if reason is not None:
            return reason
        process, levels = policy.process, self.alphas_cumprod
        if not isinstance(process, DiffusionProcess):
            return f"it knows the noise of DDPM, and the model has a {type(process).__name__}"
        own = process.alphas_cumprod.cpu()
        if own.shape != levels.shape or (own - levels).abs().max() > _APART:
            return "the noise levels of its time steps are not the model's"
        return None

    def size_misfit(self, height: int, width: int) -> str | None:
        """Every size can be read."""
        return None


@dataclass(frozen=True, kw_only=True)
class FlowLatentSpace:
    """The latents of a flow model.

    Attributes:
        channels: of a latent image.
        scaling_factor: what the autoencoder's latents are multiplied by.
        shift_factor: what is taken from them before.
        cells: latent cells of a patch's side.
        patches: most patches of an image's side.
    """

    channels: int
    scaling_factor: float
    shift_factor: float
    cells: int
    patches: int

    def misfit(self, policy: Denoiser) -> str | None:
        """Why a policy's latents are others, in words; ``None`` if they are the same."""
        reason = _misfit(policy, self.channels, scaling_factor=self.scaling_factor, shift_factor=self.shift_factor)
        if reason is not None:
            return reason
        if not isinstance(policy.process, FlowProcess):
            return f"it knows the noise of flow matching, and the model has a {type(policy.process).__name__}"
        return self.size_misfit(*policy.latent_shape[1:])

    def size_misfit(self, height: int, width: int) -> str | None:
        """Why latents of a size cannot be read, in words; ``None`` if they can."""
        if self.cells <= min(height, width) and max(height, width) // self.cells <= self.patches:
            return None
        most = self.patches * self.cells
        return f"it reads latents of {self.cells} to {most} cells a side, and these have {height} x {width}"


class LatentScorer:
    """A reward of noisy latents (:class:`seedpo.protocols.LatentReward`).

    Finished images are encoded by the autoencoder of the base model, and their mean latents scored as clean ones. Where
    the model has a size, images of another are resized to it, bilinearly.

    Args:
        model: a :class:`LatentModel`, and a module.
        tokens: token ids (1, L) of a prompt for each text encoder.
        space: the latents that it reads.
        autoencoder: loads the autoencoder when finished images are scored.
    """

    def __init__(
        self,
        model: Any,
        tokens: Callable[[str], Sequence[Tensor]],
        *,
        space: Latents,
        autoencoder: Callable[[], Any],
    ) -> None:
        network = model.eval().requires_grad_(False)
        self.model: LatentModel = network
        self._network = network
        self.tokens = tokens
        self.space = space
        self._load_autoencoder = autoencoder
        self._autoencoder: Any | None = None
        self._read = lru_cache(maxsize=KNOWN_PROMPTS)(self._reading)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Moves the network to a device, or to a number format."""
        self._network.to(device=device, dtype=dtype)
        self._read.cache_clear()
        return self

    def misfit(self, policy: Denoiser) -> str | None:
        """Why it cannot read a policy's latents, in words; ``None`` if it can."""
        return self.space.misfit(policy)

    @torch.no_grad()
    def score_latents(self, latents: Tensor, prompts: Sequence[str], *, timestep: Tensor) -> Tensor:
        """Scores (B,) float32, on the model's own scale.

        Args:
            latents: (B, C, H, W), scored in one call.
            prompts: B prompts, cut to the model's length.
            timestep: (B,), as the policy's process counts; 0 or less: clean.
        """
        device = self.model.device
        return self.model.scores(latents.to(device), timestep.to(device), prompts, self._read)

    def __call__(self, images: Images, prompts: Sequence[str]) -> Tensor:
        """Scores (B,) float32 of finished images (B, 3, H, W) in [0, 1], or of B PIL images of any sizes.

        Raises:
            DataError: if the counts differ, an element is not an image, or there is no autoencoder.
        """
        check_counts(images, prompts)
        side = self.model.image_size or USUAL_SIZE
        rows_at_once = rows_per_call(side, side)
        scores = torch.empty(len(prompts), device=self.model.device)
        for rows, pixels in byte_batches(images, batch_size=rows_at_once, device=self.model.device):
            latents = self._encoded(pixels)
            scores[rows] = self.score_latents(
                latents, [prompts[row] for row in rows], timestep=torch.zeros(len(rows), dtype=torch.int64)
            )
        return scores

    @torch.no_grad()
    def _encoded(self, pixels: Tensor) -> Tensor:
        """Mean latents (B, C, H, W) of images (B, 3, H, W) uint8."""
        if self._autoencoder is None:
            self._autoencoder = self._load_autoencoder()
            if self._autoencoder.config.latent_channels != self.space.channels:
                raise DataError(
                    f"the autoencoder has {self._autoencoder.config.latent_channels} latent channels, the reward reads "
                    f"{self.space.channels}; copy the one of its base model"
                )
        size, vae = self.model.image_size, self._autoencoder.to(pixels.device)
        values = pixels.float() / 255.0
        if size is not None and values.shape[-2:] != (size, size):
            values = interpolate(values, size=(size, size), mode="bilinear", align_corners=False, antialias=True)
        factor = 2 ** (len(vae.config.block_out_channels) - 1)
        cells = (values.shape[-2] // factor, values.shape[-1] // factor)
        if (reason := self.space.size_misfit(*cells)) is not None:
            raise DataError(
                f"an image of {values.shape[-2]} x {values.shape[-1]} pixels does not fit: {reason}; resize it"
            )
        return encode_pixels(vae, values * 2.0 - 1.0)[0]

    @torch.no_grad()
    def _reading(self, prompt: str) -> Any:
        return self.model.read(*(ids.to(self.model.device) for ids in self.tokens(prompt)))
