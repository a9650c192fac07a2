"""The batches that travel between sources, methods and models: frozen, keyword-only, with shapes.

B is the number of rows (pairs, steps or images). Latents are (B, ...): (B, C, H, W), or (B, L, C) where a model packs
them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TypeVar

import torch
from torch import Tensor

Rows = TypeVar("Rows", bound="TensorRows")


@dataclass(frozen=True, kw_only=True)
class TensorRows:
    """A record whose tensors (and nested records) share their first axis."""

    def _map(self: Rows, function: Callable[[Tensor], Tensor]) -> Rows:
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return type(self)(
            **{
                name: value._map(function)
                if isinstance(value, TensorRows)
                else function(value)
                if isinstance(value, Tensor)
                else value
                for name, value in values.items()
            }
        )

    def __len__(self) -> int:
        value = getattr(self, fields(self)[0].name)
        return len(value)

    def __getitem__(self: Rows, index: Tensor | slice) -> Rows:
        """The chosen rows, as a record of the same kind."""
        return self._map(lambda tensor: tensor[index])

    def to(self: Rows, device: torch.device | str) -> Rows:
        """The same rows on another device."""
        return self._map(lambda tensor: tensor.to(device))

    def repeat_interleave(self: Rows, repeats: int) -> Rows:
        """Every row ``repeats`` times in succession."""
        return self._map(lambda tensor: tensor.repeat_interleave(repeats, 0))

    @classmethod
    def cat(cls: type[Rows], parts: Sequence[Rows]) -> Rows:
        """Joins records of one kind along the first axis."""
        joined: dict[str, object] = {}
        for entry in fields(parts[0]):
            values = [getattr(part, entry.name) for part in parts]
            first = values[0]
            if isinstance(first, TensorRows):
                joined[entry.name] = type(first).cat(values)
            elif isinstance(first, Tensor):
                joined[entry.name] = torch.cat(values)
            else:
                joined[entry.name] = first
        return type(parts[0])(**joined)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of the record by name, without those that are ``None``."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}


@dataclass(frozen=True, kw_only=True)
class Conditioning(TensorRows):
    """What a model conditions its images on, above all embedded prompts; one row per image.

    The fields are the model's own: it makes them in ``encode_prompts`` and reads them in ``predict``, and nobody
    between the two names them.
    """

    @property
    def sizes(self) -> Tensor | None:
        """Size and crop of each image in pixels, (B, 6), for models that take them: see :meth:`with_sizes`."""
        return None

    def with_sizes(self: Rows, sizes: Tensor | None) -> Rows:
        """The same for images of other sizes; unchanged for models that take no sizes.

        Args:
            sizes: original height and width, crop from above and from the left, target height and width, (B, 6).
        """
        return self


@dataclass(frozen=True, kw_only=True)
class ImagePairs(TensorRows):
    """Pairs of images of one prompt, the first preferred.

    Attributes:
        chosen_latents: clean latents of the preferred images, (B, ...).
        rejected_latents: clean latents of the other images, (B, ...).
        conditioning: the embedded prompts.
        chosen_probability: probability that the first is preferred, (B,); 0.5 is a tie; ``None``: 1 throughout.
        pair: number of the pair in its set, (B,) int64; with ``visit`` it keys what is drawn for the pair.
        visit: how often the pair was handed out before, (B,) int64.
        stds: standard deviations of the autoencoder's distribution of both latents, (B, 2, ...), where the latents are
            its means and are to be drawn; ``None``: the latents are those to train on.
        content: SHA-256 of all that latents and conditioning were made from, (B, 32) uint8; ``None`` if
            unknown.
        gap: reward of the preferred image less that of the other, (B,); ``None`` if unknown.
        prior_noise: x_T from which the policy drew both images, (B, 2, ...); ``None`` if it did not.
        loss_weight: what the loss of each pair is multiplied by, (B,); ``None``: 1 throughout.
        suspect: whether second opinions doubt the reward of the preferred image, (B,) bool; ``None`` if there are none.
    """

    chosen_latents: Tensor
    rejected_latents: Tensor
    conditioning: Conditioning
    chosen_probability: Tensor | None = None
    pair: Tensor | None = None
    visit: Tensor | None = None
    stds: Tensor | None = None
    content: Tensor | None = None
    gap: Tensor | None = None
    prior_noise: Tensor | None = None
    loss_weight: Tensor | None = None
    suspect: Tensor | None = None

    def moved(self, offsets: Tensor) -> ImagePairs:
        """The same with offsets (B, 2, ...) added to the latents, which are then no longer to be drawn."""
        return replace(
            self,
            chosen_latents=self.chosen_latents + offsets[:, 0],
            rejected_latents=self.rejected_latents + offsets[:, 1],
            stds=None,
        )


@dataclass(frozen=True, kw_only=True)
class Likes(TensorRows):
    """Single images that somebody liked or did not like.

    Attributes:
        latents: clean latents, (B, ...).
        conditioning: the embedded prompts.
        liked: (B,) bool.
        pair: number of the row in its set, (B,) int64; with ``visit`` it keys what is drawn for the row.
        visit: how often the row was handed out before, (B,) int64.
        stds: standard deviations of the autoencoder's distribution of the latents, (B, ...), as of :class:`ImagePairs`.
    """

    latents: Tensor
    conditioning: Conditioning
    liked: Tensor
    pair: Tensor | None = None
    visit: Tensor | None = None
    stds: Tensor | None = None

    def moved(self, offsets: Tensor) -> Likes:
        """The same with offsets (B, ...) added to the latents, which are then no longer to be drawn."""
        return replace(self, latents=self.latents + offsets, stds=None)


@dataclass(frozen=True, kw_only=True)
class ImageGroups(TensorRows):
    """P groups of G images of one prompt, which the policy drew and a reward judged.

    Attributes:
        latents: clean latents, (P, G, ...).
        conditioning: the embedded prompts, P rows.
        rewards: (P, G).
        advantages: of each image in its group, (P, G).
        prior_noise: x_T from which each was drawn, (P, G, ...); ``None`` if unknown.
        loss_weight: what the advantage of each image is multiplied by, (P, G); ``None``: 1 throughout.
        suspect: whether second opinions doubt the reward of each image, (P, G) bool; ``None`` if there are none.
    """

    latents: Tensor
    conditioning: Conditioning
    rewards: Tensor
    advantages: Tensor
    prior_noise: Tensor | None = None
    loss_weight: Tensor | None = None
    suspect: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Steps(TensorRows):
    """N denoising steps that start from S latents.

    Attributes:
        latents: x_t, each once, (S, ...).
        timestep: time step of each x_t, (S,).
        next_timestep: time step that the steps from it lead to, (S,).
        conditioning: the embedded prompts, S rows.
        negative_conditioning: the embedded negative prompts for classifier-free guidance, S rows.
        next_latents: the less noisy latents that each step led to, (N, ...).
        start: row of ``latents`` from which each step starts, (N,) int64.
    """

    latents: Tensor
    timestep: Tensor
    next_timestep: Tensor
    conditioning: Conditioning
    negative_conditioning: Conditioning
    next_latents: Tensor
    start: Tensor


@dataclass(frozen=True, kw_only=True)
class StepBatch(Steps):
    """P pairs of denoising steps. Steps and the x_t that they start from are shared by number.

    Two steps from one x_t (SPO), and two from different x_t (D3PO), with S = 3, N = 4 and P = 2::

        latents       0          1          2          each runs through the network once
                    .-+-.        |          |
        start       0   0        1          2
        step        0   1        2          3          next_latents, reference_log_prob
                    |   |        |          |
        pair 0   chosen rejected |          |          chosen = [0, 2], rejected = [1, 3]
        pair 1                chosen     rejected

    Attributes:
        chosen: step that is the preferred side of each pair, (P,) int64.
        rejected: step that is the other side, (P,) int64.
        reference_log_prob: log reference of every step, summed, in nats, (N,) float64; ``None`` if unknown.
        weight: what the log-probabilities of each pair are multiplied by, (P,); 0: no gradient; ``None``: 1 throughout.
        loss_weight: what the loss of each pair is multiplied by, (P,); ``None``: 1 throughout.
        suspect: whether second opinions doubt the reward of the preferred side, (P,) bool; ``None`` if there are none.
    """

    chosen: Tensor
    rejected: Tensor
    reference_log_prob: Tensor | None = None
    weight: Tensor | None = None
    loss_weight: Tensor | None = None
    suspect: Tensor | None = None

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.chosen)


@dataclass(frozen=True, kw_only=True)
class StepGroups(Steps):
    """N denoising steps of images that were judged in groups, each with the advantage of its image.

    Attributes:
        advantage: of the image in its group, (N,).
        rollout_log_prob: log of the policy that drew the step, summed, in nats, (N,) float64.
        loss_weight: what the advantage of each step is multiplied by, (N,); ``None``: 1 throughout.
        suspect: whether second opinions doubt the reward of its image, (N,) bool; ``None`` if there are none.
    """

    advantage: Tensor
    rollout_log_prob: Tensor
    loss_weight: Tensor | None = None
    suspect: Tensor | None = None

    def __len__(self) -> int:
        """Number of steps."""
        return len(self.advantage)


@dataclass(frozen=True, kw_only=True)
class Trajectory(TensorRows):
    """A whole denoising trajectory of T steps for B rows.

    Attributes:
        latents: x_T first and the clean latents last, (B, T + 1, ...).
        timesteps: time step of each x_t, (B, T), descending.
        next_timesteps: time step reached from each x_t, (B, T).
        log_probs: log-density of each step under the network that drew it, summed, in nats, (B, T); NaN where the step
            is deterministic.
    """

    latents: Tensor
    timesteps: Tensor
    next_timesteps: Tensor
    log_probs: Tensor


@dataclass(frozen=True, kw_only=True)
class LossOutput:
    """Losses and metrics of a batch.

    Attributes:
        losses: one loss per pair, (B,), with gradient; the caller reduces.
        metrics: one value per pair and name, (B,), without gradient; the caller averages.
        spreads: names in ``metrics`` whose standard deviation is logged beside the mean.
        weights: what each loss counts in the mean of the step, which is sum(w L) / sum(w) over all its pairs, (B,),
            above 0; ``None``: 1 throughout.
    """

    losses: Tensor
    metrics: Mapping[str, Tensor]
    spreads: tuple[str, ...] = field(default=())
    weights: Tensor | None = None
