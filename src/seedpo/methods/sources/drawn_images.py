"""What a roll-out of images makes: clean latents, each stored once, and which of them are trained on together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from seedpo.core.types import ImageGroups, ImagePairs
from seedpo.methods.sources.embeddings import PromptEmbeddings
from seedpo.methods.sources.stored_steps import OF_TEACHING, joined_fields, on_device, rows_of


@dataclass(frozen=True, kw_only=True)
class DrawnImages:
    """N images of some prompts, in U units of M. Images may belong to several units, and prompts are stored as text.

    Three images of a prompt as all their pairs, the first of each preferred, and as one group::

        latents, prior_noise, reward     0  1  2          0  1  2
        member                           (1, 0)           (0, 1, 2)
                                         (2, 0)
                                         (1, 2)

    Attributes:
        latents: clean, (N, ...).
        prior_noise: x_T that each was drawn from, (N, ...).
        reward: (N,).
        advantage: of each image in its group, (N,); ``None`` for pairs.
        loss_weight: what the loss of pairs that each image wins, or its advantage, is multiplied by, (N,) float64;
            ``None``: 1 throughout.
        suspect: whether second opinions doubt the reward of each, (N,) bool; ``None`` if there are none.
        prompt: row of ``prompts`` of each image, (N,) int64.
        member: images of each unit, (U, M) int64; of a pair the preferred one first.
        prompts: the prompts.
    """

    latents: Tensor
    prior_noise: Tensor
    reward: Tensor
    advantage: Tensor | None = None
    loss_weight: Tensor | None = None
    suspect: Tensor | None = None
    prompt: Tensor
    member: Tensor
    prompts: tuple[str, ...]

    def units(self) -> int:
        """Number of units."""
        return len(self.member)

    def take(self, units: Tensor) -> DrawnImages:
        """Some units, (U',) int64, in that order, with only the images and prompts that they need.

        A unit may be named more than once. Images and prompts are numbered anew, in their old order.
        """
        images, member = torch.unique(self.member[units], return_inverse=True)
        prompts, prompt = torch.unique(self.prompt[images], return_inverse=True)
        return DrawnImages(
            latents=self.latents[images],
            prior_noise=self.prior_noise[images],
            reward=self.reward[images],
            **rows_of(self, _OPTIONAL, images),
            prompt=prompt,
            member=member,
            prompts=tuple(self.prompts[index] for index in prompts.tolist()),
        )

    def with_latents_on(self, device: torch.device | str) -> DrawnImages:
        """The same with latents and noise on another device; numbers stay on the CPU."""
        return replace(self, latents=self.latents.to(device), prior_noise=self.prior_noise.to(device))

    @classmethod
    def join(cls, parts: Sequence[DrawnImages]) -> DrawnImages:
        """Several roll-outs, or parts of one, as one; their units follow each other."""
        prompts = tuple(dict.fromkeys(prompt for part in parts for prompt in part.prompts))
        row_of = {prompt: index for index, prompt in enumerate(prompts)}
        before = [sum(len(part.latents) for part in parts[:index]) for index in range(len(parts))]
        return cls(
            latents=torch.cat([part.latents for part in parts]),
            prior_noise=torch.cat([part.prior_noise for part in parts]),
            reward=torch.cat([part.reward for part in parts]),
            **joined_fields(parts, _OPTIONAL),
            prompt=torch.cat([torch.tensor([row_of[text] for text in part.prompts])[part.prompt] for part in parts]),
            member=torch.cat([part.member + offset for part, offset in zip(parts, before, strict=True)]),
            prompts=prompts,
        )


_OPTIONAL = ("advantage", *OF_TEACHING)
"""What not all roll-outs have, one value for each image."""


def image_pairs(drawn: DrawnImages, embeddings: PromptEmbeddings) -> ImagePairs:
    """Units of two images with embedded prompts, on the policy's device."""
    device, (chosen, rejected) = embeddings.device, drawn.member.unbind(1)
    return ImagePairs(
        chosen_latents=drawn.latents[chosen].to(device),
        rejected_latents=drawn.latents[rejected].to(device),
        conditioning=embeddings.of(drawn.prompts)[drawn.prompt[chosen]],
        gap=(drawn.reward[chosen] - drawn.reward[rejected]).to(device),
        prior_noise=drawn.prior_noise[drawn.member].to(device),
        **on_device(rows_of(drawn, OF_TEACHING, chosen), device),
    )


def image_groups(drawn: DrawnImages, embeddings: PromptEmbeddings) -> ImageGroups:
    """Units of G images with embedded prompts, on the policy's device.

    Raises:
        ValueError: if the images have no advantages.
    """
    if drawn.advantage is None:
        raise ValueError("images of pairs have no advantages in a group")
    device, member = embeddings.device, drawn.member
    return ImageGroups(
        latents=drawn.latents[member].to(device),
        conditioning=embeddings.of(drawn.prompts)[drawn.prompt[member[:, 0]]],
        rewards=drawn.reward[member].to(device),
        advantages=drawn.advantage[member].to(device),
        prior_noise=drawn.prior_noise[member].to(device),
        **on_device(rows_of(drawn, OF_TEACHING, member), device),
    )
