"""How a preference model sees labelled pairs: as previews of noisy images (SPO), or as finished images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from seedpo.core.draws import KeyedDraws
from seedpo.core.sampling import draw_noise, guided_prediction
from seedpo.core.types import Conditioning, ImagePairs
from seedpo.data.pairs.readers import expect
from seedpo.errors import DataError
from seedpo.protocols import Denoiser, PreferencePairs
from seedpo.rewards.preprocessing import clip_pixels
from seedpo.rewards.scoring import to_bytes
from seedpo.rewards.step_aware_clip import normalise


@dataclass(frozen=True, kw_only=True)
class SeenPairs:
    """Pairs as a preference model sees them.

    Attributes:
        pixels: prepared for its vision tower, preferred and other image, (B, 2, 3, S, S).
        timestep: of the previews, the same for both images, (B,) int64; `None` for finished images. Here times are
            those that scorers read (:meth:`seedpo.core.processes.Process.embedded_time`): for every process the numbers
            of a DDPM's time steps.
    """

    pixels: Tensor
    timestep: Tensor | None = None


class Views(Protocol):
    """How a preference model sees pairs."""

    timesteps: Sequence[int | None]
    """Time steps at which accuracies are measured; `None` for finished images."""

    def drawn(self, pairs: ImagePairs, *, generator: torch.Generator) -> SeenPairs:
        """Pairs as in training."""

    def at(self, pairs: ImagePairs, timestep: int | None, *, seed: int) -> SeenPairs:
        """Pairs as in an evaluation; the noise of a pair depends on seed, pair and time step alone."""


class FinishedImages:
    """Images as they are: ``latents`` of the pairs are prepared pixels already."""

    timesteps: Sequence[int | None] = (None,)

    def drawn(self, pairs: ImagePairs, *, generator: torch.Generator) -> SeenPairs:
        """Nothing is drawn."""
        return SeenPairs(pixels=torch.stack([pairs.chosen_latents, pairs.rejected_latents], dim=1))

    def at(self, pairs: ImagePairs, timestep: int | None, *, seed: int) -> SeenPairs:
        """The same as in training."""
        return SeenPairs(pixels=torch.stack([pairs.chosen_latents, pairs.rejected_latents], dim=1))


class PixelPairs:
    """Pairs whose ``latents`` are prepared pixels (3, S, S): a model of finished images has no other latent space.

    They are prepared at every visit as the scorer of finished images prepares them. No prompt is embedded.

    Args:
        pairs: the labelled images.
        size: height and width S of the model's images, in pixels.
    """

    def __init__(self, pairs: PreferencePairs, *, size: int) -> None:
        self.pairs = pairs
        self.size = size

    def __len__(self) -> int:
        return len(self.pairs)

    def encode(self, rows: Sequence[int], mirrored: Sequence[bool], emptied: Sequence[bool] = ()) -> ImagePairs:
        """Pairs ready for training; both images of a pair are mirrored left to right where ``mirrored`` says so.

        Prompts are not part of them, so that ``emptied`` changes nothing.

        Raises:
            DataError: if a row cannot be read.
        """
        read = [self.pairs[row] for row in rows]
        chosen, rejected = (
            [self._prepared(pair.images[side], mirror) for pair, mirror in zip(read, mirrored, strict=True)]
            for side in (0, 1)
        )
        return ImagePairs(
            chosen_latents=torch.cat(chosen),
            rejected_latents=torch.cat(rejected),
            conditioning=Conditioning(),
            chosen_probability=torch.tensor([pair.chosen_probability for pair in read]),
        )

    def expect(self, rows: Sequence[int], mirrored: Sequence[bool]) -> None:
        """Says which pairs are asked for next."""
        expect(self.pairs, rows)

    def _prepared(self, image: Tensor, mirrored: bool) -> Tensor:
        pixels = to_bytes((image.flip(-1) if mirrored else image)[None])
        return clip_pixels(pixels, self.size, crop="transformers")


class NoisyPreviews:
    """Predictions of the clean images at a time step, decoded (SPO, arXiv 2406.04314, sec. 3.2).

    Shown is decode(x_0 as predicted at x_t), with the same t and the same noise for both images of a pair. At t = 0 the
    clean latents are decoded, which is what the last step of a sampler returns. SDXL's size
    conditioning says that images have its own size and are not cropped, as published and as in sampling.

    Deviations from SPO's code: latents are the mean of the autoencoder's distribution, not a sample (so that they can
    be cached); time step 0 has no noise in training either, and its images are decoded latents in evaluations, too.

    Args:
        denoiser: predicts the clean images; it is never trained.
        size: height and width S of the preference model's images.
        guidance_scale: classifier-free guidance of the predictions.
        clean_share: share of pairs at time step 0, besides those that are drawn uniformly from all time steps.
            Uniform means the scorer's time, for flow matching, too, whose own density plays no part here.
        timesteps: at which accuracies are measured.
        images_per_call: images that are predicted at a time.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        *,
        size: int,
        guidance_scale: float,
        clean_share: float = 0.0,
        timesteps: Sequence[int] = (0, 251, 501, 701, 951),
        images_per_call: int = 32,
    ) -> None:
        self.denoiser = denoiser
        self.size = size
        self.guidance_scale = guidance_scale
        self.clean_share = clean_share
        self.timesteps: Sequence[int | None] = tuple(timesteps)
        self.images_per_call = images_per_call
        self._negative: Conditioning | None = None

    def drawn(self, pairs: ImagePairs, *, generator: torch.Generator) -> SeenPairs:
        """Previews at uniform time steps; drawn in this order: time steps, who is shown finished, noise."""
        count = len(pairs)
        timestep = torch.randint(self.denoiser.process.embedded_times, (count,), generator=generator)
        timestep[torch.rand(count, generator=generator) < self.clean_share] = 0
        noise = draw_noise(tuple(pairs.chosen_latents.shape), generator=generator)
        return self.shown(pairs, timestep, noise)

    def at(self, pairs: ImagePairs, timestep: int | None, *, seed: int) -> SeenPairs:
        """Previews at one time step."""
        if pairs.pair is None or timestep is None:
            raise ValueError("previews need a time step, and the numbers of the pairs")
        steps = torch.full((len(pairs),), timestep)
        _, noise = KeyedDraws(seed=seed).timestep_and_noise(
            pairs.pair, steps, process=self.denoiser.process, shape=pairs.chosen_latents.shape[1:]
        )
        return self.shown(pairs, steps, noise)

    @torch.no_grad()
    def shown(self, pairs: ImagePairs, timestep: Tensor, noise: Tensor) -> SeenPairs:
        """Previews for given time steps and noise.

        Args:
            pairs: clean latents and embedded prompts of B pairs.
            timestep: (B,) int64.
            noise: standard normal, (B, C, H, W); both images of a pair get the same.

        Raises:
            DataError: if the size of the images is not the diffusion model's.
        """
        shape = tuple(pairs.chosen_latents.shape[1:])
        if shape != self.denoiser.latent_shape:
            raise DataError(
                f"the pairs have latents of {_text(shape)}, but the diffusion model's have "
                f"{_text(self.denoiser.latent_shape)}; bring them to its image size with pairs.resolution, or set "
                "resolution"
            )
        device = self.denoiser.device
        # (2 B, ...): all preferred images, then all others.
        latents = torch.cat([pairs.chosen_latents, pairs.rejected_latents]).to(device)
        times, noises = (torch.cat([drawn, drawn]).to(device) for drawn in (timestep, noise))
        conditioning = Conditioning.cat([pairs.conditioning, pairs.conditioning]).to(device)
        clean = torch.cat(
            [
                self._predicted(latents[rows], times[rows], noises[rows], conditioning[rows])
                for rows in torch.split(torch.arange(len(latents), device=device), self.images_per_call)
            ]
        )
        pixels = normalise(self.denoiser.decode(clean), self.size)
        return SeenPairs(pixels=torch.stack(pixels.chunk(2), dim=1), timestep=timestep.to(device))

    def _predicted(self, latents: Tensor, timestep: Tensor, noise: Tensor, conditioning: Conditioning) -> Tensor:
        """Predicted clean latents; those at time step 0 stay as they are."""
        noisy_rows = (timestep > 0).nonzero()[:, 0]
        if not len(noisy_rows):
            return latents
        process = self.denoiser.process
        times = process.timestep_of(timestep[noisy_rows])
        noisy = process.noisy(latents[noisy_rows], noise[noisy_rows], times)
        negative = self._negatives(len(times))
        prediction = guided_prediction(
            self.denoiser,
            noisy,
            times,
            conditioning[noisy_rows].with_sizes(negative.sizes),
            negative,
            self.guidance_scale,
        )
        result = latents.clone()
        result[noisy_rows] = process.clean(prediction, noisy, times).to(result)
        return result

    def _negatives(self, count: int) -> Conditioning:
        if self._negative is None:
            self._negative = self.denoiser.encode_prompts([""])
        return self._negative.repeat_interleave(count)


def _text(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
