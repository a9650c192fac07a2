from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import CLIPTokenizer

from seedpo.protocols import LabelledPair
from seedpo.rewards.preference_training import (
    EncodedPairs,
    accuracy_at,
    encode_pairs,
    preference_margins,
    previews,
    train_contrastively,
    train_on_preferences,
)
from seedpo.rewards.step_aware_clip import StepAwareCLIP, normalise, tokens
from tests.rewards.tiny_clip import tiny_model, tiny_tokenizer
from tests.toy_denoiser import STEPS, ToyDenoiser

PROMPTS = ["a red star", "a blue ring", "a green cross", "a pink circle"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def brightness_pairs(count: int, *, seed: int = 0) -> EncodedPairs:
    """Noisy plain images of which the brighter one is preferred."""
    generator = seeded(seed)
    level = torch.rand(count, 2, generator=generator).sort(1, descending=True).values * 0.8 + 0.1
    level[:, 0] += 0.1
    images = level[:, :, None, None, None] + 0.05 * torch.randn(count, 2, 3, 8, 8, generator=generator)
    images = images.clamp(0, 1)
    return EncodedPairs(
        prompts=[PROMPTS[row % len(PROMPTS)] for row in range(count)], images=images, latents=images * 2 - 1
    )


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


class Listed:
    """Pairs as a reader gives them."""

    def __init__(self, count: int) -> None:
        images = [torch.rand(2, 3, 8, 8, generator=seeded(row)) for row in range(count)]
        self.rows = [
            LabelledPair(prompt=PROMPTS[row % 4], chosen=both[0], rejected=both[1], original_size=(8, 8))
            for row, both in enumerate(images)
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> LabelledPair:
        return self.rows[row]


class TestEncoding:
    def test_keeps_order_and_sides(self) -> None:
        denoiser, listed = ToyDenoiser(), Listed(70)
        encoded = encode_pairs(listed, denoiser)
        assert len(encoded) == 70
        assert denoiser.encoded == 140
        for row in (0, 1, 69):
            pair = listed[row]
            assert encoded.prompts[row] == pair.prompt
            assert torch.equal(encoded.images[row], torch.stack([pair.chosen, pair.rejected]))
        torch.testing.assert_close(encoded.latents, encoded.images * 2 - 1)


class TestPreviews:
    def shown(
        self,
        pairs: EncodedPairs,
        timestep: Sequence[int],
        denoiser: ToyDenoiser | None = None,
        seed: int = 0,
        scale: float = 1.0,
    ) -> Tensor:
        return previews(
            pairs.images,
            pairs.latents,
            pairs.prompts,
            torch.tensor(timestep),
            denoiser or ToyDenoiser(),
            guidance_scale=scale,
            generator=seeded(seed),
        )

    def test_at_time_step_0_are_the_images(self) -> None:
        pairs, denoiser = brightness_pairs(3), ToyDenoiser()
        assert torch.equal(self.shown(pairs, [0, 0, 0], denoiser), pairs.images)
        assert not denoiser.calls

    def test_elsewhere_are_the_decoded_predictions(self) -> None:
        """The toy predicts the mean colour of the noisy latents, and the prompt's value."""
        pairs, schedule = brightness_pairs(3), ToyDenoiser().schedule
        steps = [10, 50, 99]
        shown = self.shown(pairs, steps)
        noise = torch.randn(3, 1, 3, 8, 8, generator=seeded())
        for row, step in enumerate(steps):
            level = schedule.alphas_cumprod[step]
            noisy = level.sqrt() * pairs.latents[row] + (1 - level).sqrt() * noise[row]
            predicted = noisy.mean((2, 3), keepdim=True) + len(pairs.prompts[row]) / 100
            wanted = (predicted / 2 + 0.5).clamp(0, 1).expand(2, 3, 8, 8)
            torch.testing.assert_close(shown[row], wanted, rtol=0, atol=1e-5)

    def test_both_images_of_a_pair_share_noise_and_time(self) -> None:
        pairs, denoiser = brightness_pairs(4), ToyDenoiser()
        same = replace(pairs, latents=pairs.latents[:, :1].expand(-1, 2, -1, -1, -1))
        shown = self.shown(same, [20, 40, 60, 80], denoiser)
        assert torch.equal(shown[:, 0], shown[:, 1])
        ((latents, times),) = denoiser.calls
        assert times.tolist() == [20, 20, 40, 40, 60, 60, 80, 80]
        assert torch.equal(latents[::2], latents[1::2])
        assert not torch.equal(latents[0], latents[2])

    def test_only_noisy_rows_are_predicted(self) -> None:
        pairs, denoiser = brightness_pairs(3), ToyDenoiser()
        shown = self.shown(pairs, [0, 30, 0], denoiser)
        assert [len(latents) for latents, _ in denoiser.calls] == [2]
        assert torch.equal(shown[[0, 2]], pairs.images[[0, 2]])
        assert not torch.equal(shown[1], pairs.images[1])

    def test_the_noise_of_a_pair_does_not_depend_on_the_others(self) -> None:
        pairs = brightness_pairs(3)
        assert torch.equal(self.shown(pairs, [0, 30, 0])[1], self.shown(pairs, [60, 30, 90])[1])

    def test_guidance_contrasts_the_prompt_with_the_empty_one(self) -> None:
        pairs, denoiser = brightness_pairs(2), ToyDenoiser()
        plain = self.shown(pairs, [30, 30])
        guided = self.shown(pairs, [30, 30], denoiser, scale=3.0)
        ((latents, _),) = denoiser.calls
        assert len(latents) == 8
        inside = (guided < 1) & (plain < 1)
        value = torch.tensor([len(prompt) / 100 for prompt in pairs.prompts]).view(2, 1, 1, 1, 1)
        difference = (3.0 - 1.0) * value.expand_as(plain) / 2
        torch.testing.assert_close((guided - plain)[inside], difference[inside], rtol=0, atol=1e-5)

    def test_the_images_handed_in_stay_as_they_are(self) -> None:
        pairs = brightness_pairs(2)
        kept = pairs.images.clone()
        self.shown(pairs, [30, 30])
        assert torch.equal(pairs.images, kept)


class TestMargins:
    def test_are_differences_of_scores_and_change_sign_with_the_sides(self, tokenizer: CLIPTokenizer) -> None:
        model, pairs = tiny_model(tokenizer).eval(), brightness_pairs(6)
        swapped = replace(pairs, images=pairs.images.flip(1), latents=pairs.latents.flip(1))
        rows = torch.tensor([4, 1, 5])
        steps = torch.tensor([0, 30, 80])

        def margins(some: EncodedPairs) -> Tensor:
            return preference_margins(
                model, tokenizer, some, rows, steps, ToyDenoiser(), guidance_scale=1.0, generator=seeded()
            )

        assert margins(pairs).shape == (3,)
        torch.testing.assert_close(margins(swapped), -margins(pairs), rtol=0, atol=1e-4)

    def test_one_pair(self, tokenizer: CLIPTokenizer) -> None:
        margins = preference_margins(
            tiny_model(tokenizer),
            tokenizer,
            brightness_pairs(3),
            torch.tensor([2]),
            torch.tensor([30]),
            ToyDenoiser(),
            guidance_scale=1.0,
            generator=seeded(),
        )
        assert margins.shape == (1,)
        assert margins.requires_grad


class TestPreferences:
    def trained(self, tokenizer: CLIPTokenizer, *, steps: int, seed: int = 0) -> StepAwareCLIP:
        model = tiny_model(tokenizer, seed=1)
        train_on_preferences(
            model,
            tokenizer,
            brightness_pairs(64),
            ToyDenoiser(),
            steps=steps,
            batch_size=16,
            learning_rate=3e-3,
            guidance_scale=1.0,
            seed=seed,
            progress=False,
        )
        return model

    def accuracy(self, model: StepAwareCLIP, tokenizer: CLIPTokenizer, *, timestep: int, seed: int = 0) -> float:
        held_out = brightness_pairs(200, seed=9)
        return accuracy_at(model, tokenizer, held_out, ToyDenoiser(), timestep=timestep, guidance_scale=1.0, seed=seed)

    def test_a_simple_preference_is_learnt(self, tokenizer: CLIPTokenizer) -> None:
        assert self.accuracy(tiny_model(tokenizer, seed=1), tokenizer, timestep=0) < 0.8
        model = self.trained(tokenizer, steps=60)
        assert self.accuracy(model, tokenizer, timestep=0) > 0.9
        assert self.accuracy(model, tokenizer, timestep=10) > 0.85

    def test_a_seed_gives_the_same_weights_again(self, tokenizer: CLIPTokenizer) -> None:
        first, again, other = (self.trained(tokenizer, steps=3, seed=seed).state_dict() for seed in (0, 0, 1))
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert not all(torch.equal(first[name], other[name]) for name in first)

    @pytest.mark.parametrize(("clean_share", "noisy"), [(1.0, (0, 0)), (0.0, (30, 32)), (0.5, (10, 22))])
    def test_a_share_of_the_pairs_is_shown_as_it_is(
        self, tokenizer: CLIPTokenizer, clean_share: float, noisy: tuple[int, int]
    ) -> None:
        denoiser = ToyDenoiser()
        train_on_preferences(
            tiny_model(tokenizer),
            tokenizer,
            brightness_pairs(8),
            denoiser,
            steps=2,
            batch_size=16,
            learning_rate=1e-3,
            guidance_scale=1.0,
            clean_share=clean_share,
            seed=0,
            progress=False,
        )
        pairs = sum(len(latents) for latents, _ in denoiser.calls) // 2
        assert noisy[0] <= pairs <= noisy[1]

    def test_the_temperature_stays_bounded(self, tokenizer: CLIPTokenizer) -> None:
        model = tiny_model(tokenizer)
        with torch.no_grad():
            model.logit_scale.fill_(10.0)
        train_on_preferences(
            model,
            tokenizer,
            brightness_pairs(8),
            ToyDenoiser(),
            steps=1,
            batch_size=4,
            learning_rate=1e-3,
            guidance_scale=1.0,
            seed=0,
            progress=False,
        )
        assert model.logit_scale.item() == pytest.approx(math.log(100))

    def test_accuracy_counts_every_pair(self, tokenizer: CLIPTokenizer) -> None:
        """An accuracy and that of the swapped pairs sum to 1."""
        model, pairs = tiny_model(tokenizer).eval(), brightness_pairs(130)
        swapped = replace(pairs, images=pairs.images.flip(1), latents=pairs.latents.flip(1))
        accuracies = [
            accuracy_at(model, tokenizer, some, ToyDenoiser(), timestep=STEPS // 2, guidance_scale=1.0, seed=3)
            for some in (pairs, swapped)
        ]
        assert sum(accuracies) == pytest.approx(1.0)
        assert (accuracies[0] * 130) % 1 == pytest.approx(0, abs=1e-6)


COLOURS = {"a red star": (0.9, 0.1, 0.1), "a blue ring": (0.1, 0.1, 0.9), "a green cross": (0.1, 0.8, 0.1)}


def captioned(count: int, generator: torch.Generator) -> tuple[Sequence[str], Tensor]:
    """Plain images in the colour of their caption."""
    captions = [list(COLOURS)[row] for row in torch.randint(3, (count,), generator=generator).tolist()]
    colour = torch.tensor([COLOURS[caption] for caption in captions])
    return captions, (colour[:, :, None, None] + 0.1 * torch.rand(count, 3, 8, 8, generator=generator)).clamp(0, 1)


@torch.no_grad()
def contrastive_loss(model: StepAwareCLIP, tokenizer: CLIPTokenizer) -> float:
    """Of 30 images against the three captions."""
    captions, images = captioned(30, seeded(5))
    image = model.image_embeds(normalise(images, 8), torch.zeros(30))
    text = model.text_embeds(**tokens(tokenizer, list(COLOURS)))
    target = torch.tensor([list(COLOURS).index(caption) for caption in captions])
    return float(cross_entropy(model.logit_scale.exp() * image @ text.mT, target))


class TestCaptions:
    def trained(self, tokenizer: CLIPTokenizer, *, steps: int, seed: int = 0) -> StepAwareCLIP:
        model = tiny_model(tokenizer, seed=1)
        train_contrastively(
            model, tokenizer, captioned, steps=steps, batch_size=12, learning_rate=3e-3, seed=seed, progress=False
        )
        return model

    def test_the_contrastive_loss_falls(self, tokenizer: CLIPTokenizer) -> None:
        before = contrastive_loss(tiny_model(tokenizer, seed=1), tokenizer)
        after = contrastive_loss(self.trained(tokenizer, steps=60), tokenizer)
        assert before > 0.8
        assert after < 0.3

    def test_a_seed_gives_the_same_weights_again(self, tokenizer: CLIPTokenizer) -> None:
        first, again, other = (self.trained(tokenizer, steps=2, seed=seed).state_dict() for seed in (0, 0, 1))
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert not all(torch.equal(first[name], other[name]) for name in first)
