from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from seedpo.core.types import ImagePairs
from seedpo.data.cache.pairs import EncodedPairs
from seedpo.errors import DataError
from seedpo.rewards.previews import FinishedImages, NoisyPreviews
from seedpo.rewards.step_aware_clip import normalise
from tests.rewards.toy_pairs import BrightPairs, seeded
from tests.toy_denoiser import ToyDenoiser

STD = 0.27
"""About the deviation by which CLIP's pixels are divided; differences are compared in units of it."""


def batch_of(denoiser: ToyDenoiser, count: int = 3, *, seed: int = 0) -> ImagePairs:
    encoded = EncodedPairs(BrightPairs(count, seed=seed), denoiser).encode(list(range(count)), [False] * count)
    return replace(encoded, pair=torch.arange(count))


def views_of(denoiser: ToyDenoiser, **settings: float) -> NoisyPreviews:
    given = {"guidance_scale": 1.0} | settings
    return NoisyPreviews(denoiser, size=8, **given)  # type: ignore[arg-type]


def shown(batch: ImagePairs, steps: list[int], denoiser: ToyDenoiser | None = None, **settings: float) -> Tensor:
    denoiser = denoiser or ToyDenoiser()
    noise = torch.randn(batch.chosen_latents.shape, generator=seeded())
    return views_of(denoiser, **settings).shown(batch, torch.tensor(steps), noise).pixels


def test_at_time_step_0_clean_latents_are_decoded_and_nothing_is_predicted() -> None:
    denoiser = ToyDenoiser()
    batch = batch_of(denoiser)
    seen = shown(batch, [0, 0, 0], denoiser)
    wanted = normalise(denoiser.decode(batch.chosen_latents), 8)
    assert torch.equal(seen[:, 0], wanted)
    assert not denoiser.calls


def test_elsewhere_are_the_decoded_predictions() -> None:
    """The toy predicts the mean colour of the noisy latents, and the prompt's value."""
    batch, schedule, steps = batch_of(ToyDenoiser()), ToyDenoiser().process, [10, 50, 99]
    seen = shown(batch, steps)
    noise = torch.randn(batch.chosen_latents.shape, generator=seeded())
    for row, step in enumerate(steps):
        level = schedule.alphas_cumprod[step]
        for side, latents in enumerate((batch.chosen_latents[row], batch.rejected_latents[row])):
            noisy = level.sqrt() * latents + (1 - level).sqrt() * noise[row]
            predicted = noisy.mean((1, 2), keepdim=True) + len(BrightPairs(3).prompt(row)) / 100
            wanted = normalise((predicted / 2 + 0.5).clamp(0, 1).expand(3, 8, 8)[None], 8)[0]
            torch.testing.assert_close(seen[row, side], wanted, rtol=0, atol=1e-4)


def test_both_images_of_a_pair_share_noise_and_time() -> None:
    denoiser = ToyDenoiser()
    batch = batch_of(denoiser, 4)
    same = replace(batch, rejected_latents=batch.chosen_latents)
    views = views_of(denoiser)
    seen = views.drawn(same, generator=seeded(3))
    assert torch.equal(seen.pixels[:, 0], seen.pixels[:, 1])
    ((latents, times),) = denoiser.calls
    assert seen.timestep is not None
    assert times.tolist() == seen.timestep.tolist() * 2
    assert torch.equal(latents[:4], latents[4:])
    assert not torch.equal(latents[0], latents[1])


def test_draws_come_from_the_generator_alone() -> None:
    batch, views = batch_of(ToyDenoiser()), views_of(ToyDenoiser())
    torch.manual_seed(1)
    first = views.drawn(batch, generator=seeded(5))
    torch.manual_seed(2)
    again = views.drawn(batch, generator=seeded(5))
    other = views.drawn(batch, generator=seeded(6))
    assert torch.equal(first.pixels, again.pixels)
    assert not torch.equal(first.pixels, other.pixels)


@pytest.mark.parametrize(("share", "least", "most"), [(1.0, 200, 200), (0.0, 0, 12), (0.5, 70, 130)])
def test_a_share_of_the_pairs_is_shown_finished(share: float, least: int, most: int) -> None:
    denoiser = ToyDenoiser()
    seen = views_of(denoiser, clean_share=share).drawn(batch_of(denoiser, 200), generator=seeded())
    assert seen.timestep is not None
    assert least <= int((seen.timestep == 0).sum()) <= most


def test_only_noisy_rows_are_predicted() -> None:
    denoiser = ToyDenoiser()
    shown(batch_of(denoiser), [0, 30, 0], denoiser)
    assert [len(latents) for latents, _ in denoiser.calls] == [2]


def test_guidance_contrasts_the_prompt_with_the_empty_one() -> None:
    denoiser = ToyDenoiser()
    batch = batch_of(denoiser, 2)
    plain, guided = shown(batch, [30, 30]), shown(batch, [30, 30], denoiser, guidance_scale=3.0)
    assert [len(latents) for latents, _ in denoiser.calls] == [8]
    assert (guided - plain).mean() > 0.05 / STD


def test_the_size_of_a_call_changes_nothing() -> None:
    batch = batch_of(ToyDenoiser(), 5)
    steps = [0, 30, 50, 70, 90]
    torch.testing.assert_close(shown(batch, steps), shown(batch, steps, images_per_call=3))


def test_an_evaluation_sees_a_pair_alike_whatever_else_is_in_the_batch() -> None:
    denoiser = ToyDenoiser()
    batch, views = batch_of(denoiser, 4), views_of(denoiser)
    whole = views.at(batch, 40, seed=7).pixels
    part = views.at(batch[torch.tensor([2])], 40, seed=7).pixels
    torch.testing.assert_close(whole[2:3], part)
    assert not torch.equal(whole, views.at(batch, 40, seed=8).pixels)


def test_latents_of_another_size_are_refused() -> None:
    with pytest.raises(DataError, match=r"3 x 8 x 8, but the diffusion model's have 3 x 16 x 16.*pairs.resolution"):
        views_of(ToyDenoiser(size=16)).drawn(batch_of(ToyDenoiser()), generator=seeded())


def test_finished_images_are_the_pixels_at_hand() -> None:
    batch = batch_of(ToyDenoiser())
    seen = FinishedImages().drawn(batch, generator=seeded())
    assert torch.equal(seen.pixels[:, 1], batch.rejected_latents)
    assert seen.timestep is None
