"""The noise of a pair: shared and fresh, or for each image the one that it was drawn from."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from seedpo.core.types import ImagePairs
from seedpo.methods.noise_dpo import NoiseDPO
from seedpo.methods.noising import noised_pairs
from tests.core.flow_data import flow_process
from tests.methods.sources.toys import PROMPTS, ToyPolicy, schedule, seeded

B = 4


def pairs() -> ImagePairs:
    policy = ToyPolicy()
    chosen, rejected = torch.randn(2, B, *policy.latent_shape, generator=seeded(1))
    return ImagePairs(
        chosen_latents=chosen,
        rejected_latents=rejected,
        conditioning=policy.encode_prompts(PROMPTS[:B]),
        prior_noise=torch.randn(B, 2, *policy.latent_shape, generator=seeded(2)),
    )


@pytest.mark.parametrize("process", [schedule(), flow_process()], ids=["diffusion", "flow"])
def test_each_image_gets_the_noise_it_was_drawn_from(process: object) -> None:
    batch = pairs()
    assert batch.prior_noise is not None
    fresh, prior = (
        noised_pairs(batch, process, draws=None, generator=seeded(), prior_noise=some)  # type: ignore[arg-type]
        for some in (False, True)
    )
    assert torch.equal(fresh.timestep, prior.timestep), "the same draws follow"
    for side, clean in enumerate((batch.chosen_latents, batch.rejected_latents)):
        rows, time = slice(side * B, (side + 1) * B), prior.timestep
        noise = batch.prior_noise[:, side]
        assert torch.equal(prior.rows.latents[rows], process.noisy(clean, noise, time))  # type: ignore[attr-defined]
        assert torch.equal(prior.rows.target[rows], process.target(clean, noise, time))  # type: ignore[attr-defined]
        assert torch.equal(fresh.rows.latents[rows], process.noisy(clean, fresh.noise, time))  # type: ignore[attr-defined]


def test_the_objective_passes_it_on() -> None:
    losses = [
        NoiseDPO(policy_weight=9.0, reference_weight=9.0, prior_noise=some).loss(
            ToyPolicy(), pairs(), generator=seeded()
        )
        for some in (False, True)
    ]
    assert not torch.isclose(losses[0].losses, losses[1].losses).any()


def test_images_of_a_data_set_have_none() -> None:
    with pytest.raises(ValueError, match="only images that the policy drew"):
        noised_pairs(replace(pairs(), prior_noise=None), schedule(), draws=None, generator=seeded(), prior_noise=True)
