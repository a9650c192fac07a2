"""Clean latents with noise at a time step, as the objectives on the noise-prediction surrogate compare them.

The surrogate of log pi(x_0) is -1/2 of the squared error of what the network predicts, at one time and one noise: the
noise of Diffusion-DPO (arXiv 2311.12908, eq. 14), the velocity for flow matching (Flow-DPO, arXiv 2501.13918). What is
compared shares its time and its noise: the two images of a pair, the images of a group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from seedpo.core.draws import PairDraws
from seedpo.core.processes import Process
from seedpo.core.sampling import draw_noise
from seedpo.core.transitions import noise_log_prob, squared_distance
from seedpo.core.types import Conditioning, ImagePairs
from seedpo.protocols import Policy


class Numbered(Protocol):
    """Rows that keyed draws can tell apart."""

    @property
    def pair(self) -> Tensor | None:
        """Number of each row in its set, (B,) int64."""

    @property
    def visit(self) -> Tensor | None:
        """How often each was handed out before, (B,) int64."""

    def __len__(self) -> int:
        """Number of rows."""


@dataclass(frozen=True, kw_only=True)
class Noised:
    """R noisy latents, and what the network is to predict of them.

    Attributes:
        latents: (R, ...).
        timestep: (R,).
        target: (R, ...).
        conditioning: of R rows.
    """

    latents: Tensor
    timestep: Tensor
    target: Tensor
    conditioning: Conditioning

    def prediction(self, policy: Policy) -> Tensor:
        """What the policy predicts, (R, ...); inside ``policy.reference()`` what the reference does."""
        return policy.predict(self.latents, self.timestep, self.conditioning)

    def errors(self, prediction: Tensor) -> Tensor:
        """Mean squared errors of a prediction over the latent dimensions, (R,), without gradient."""
        return -2 * noise_log_prob(prediction.detach(), self.target, reduction="mean")


def noised(process: Process, clean: Tensor, noise: Tensor, timestep: Tensor, conditioning: Conditioning) -> Noised:
    """Clean latents (R, ...) with noise (R, ...) at time steps (R,), which are moved to where the latents are."""
    noise, timestep = noise.to(clean.device), timestep.to(clean.device)
    return Noised(
        latents=process.noisy(clean, noise, timestep),
        timestep=timestep,
        target=process.target(clean, noise, timestep),
        conditioning=conditioning,
    )


def drawn(
    rows: Numbered,
    process: Process,
    shape: torch.Size,
    *,
    draws: PairDraws | None,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """A time step and a noise for each of B rows, (B,) and (B, *shape), on the CPU.

    Args:
        rows: that are to be noised.
        process: draws the time steps.
        shape: of one latent image.
        draws: as a function of row and visit; ``None``: from the generator.
        generator: a CPU generator, which keyed draws leave alone.

    Raises:
        ValueError: if the draws are keyed and the rows have no numbers.
    """
    if draws is None:
        timestep = process.draw_timesteps(len(rows), generator=generator)
        return timestep, draw_noise((len(rows), *shape), generator=generator)
    if rows.pair is None or rows.visit is None:
        raise ValueError("keyed draws need to know the pairs of a batch and their visits")
    return draws.timestep_and_noise(rows.pair, rows.visit, process=process, shape=shape)


@dataclass(frozen=True, kw_only=True)
class NoisedPairs:
    """Both images of B pairs with the same noise at the same time step.

    Attributes:
        rows: 2B rows; 0 to B - 1 chosen, B to 2B - 1 rejected.
        timestep: that was drawn for each pair, (B,), on the CPU.
        noise: that was drawn for each pair, (B, ...), on the CPU.
    """

    rows: Noised
    timestep: Tensor
    noise: Tensor


def noised_pairs(
    pairs: ImagePairs,
    process: Process,
    *,
    draws: PairDraws | None,
    generator: torch.Generator,
    prior_noise: bool = False,
) -> NoisedPairs:
    """Draws a time step and a noise for each pair, and noises both images with them; see :func:`drawn`.

    Args:
        pairs: whose images are noised.
        process: draws the time steps.
        draws: as for :func:`drawn`.
        generator: as for :func:`drawn`.
        prior_noise: whether each image gets the noise that it was drawn from instead (DDIM-InPO, arXiv 2503.18454;
            PNAPO, arXiv 2605.09433).

    Raises:
        ValueError: if the pairs do not know theirs, or as :func:`drawn`.
    """
    clean = torch.cat([pairs.chosen_latents, pairs.rejected_latents])
    timestep, noise = drawn(pairs, process, clean.shape[1:], draws=draws, generator=generator)
    rows = noised(
        process,
        clean,
        noise=_prior_noise(pairs) if prior_noise else torch.cat([noise, noise]),
        timestep=torch.cat([timestep, timestep]),
        conditioning=Conditioning.cat([pairs.conditioning, pairs.conditioning]),
    )
    return NoisedPairs(rows=rows, timestep=timestep, noise=noise)


def pair_errors(rows: Noised, **predictions: Tensor) -> dict[str, Tensor]:
    """The metrics ``error/<name>_chosen`` and ``error/<name>_rejected``, (B,): mean squared errors of predictions.

    Args:
        rows: 2B rows, first the chosen images, then the rejected ones.
        predictions: of a model (``policy``, ``reference``) for these rows, (2B, ...).
    """
    errors = {name: rows.errors(prediction).chunk(2) for name, prediction in predictions.items()}
    return {
        f"error/{name}_{side}": value
        for name, sides in errors.items()
        for side, value in zip(("chosen", "rejected"), sides, strict=True)
    }


def distance(prediction: Tensor, reference: Tensor) -> Tensor:
    """Mean squared difference of two predictions (R, ...) over the latent dimensions, (R,), without gradient."""
    return squared_distance(prediction.detach(), reference.detach())


def _prior_noise(pairs: ImagePairs) -> Tensor:
    """That of the preferred images, then that of the others, (2B, ...)."""
    if pairs.prior_noise is None:
        raise ValueError("only images that the policy drew know the noise that they were drawn from")
    return pairs.prior_noise.transpose(0, 1).flatten(0, 1)
