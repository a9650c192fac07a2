from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seedpo.data.cache.pairs import EncodedPairs
from seedpo.errors import TrainingDiverged
from seedpo.methods.sources.offline import OfflinePairs
from seedpo.rewards.preference_evaluation import PreferenceEvaluation
from seedpo.rewards.preference_model import Comparison, PreferenceModel
from seedpo.rewards.preference_objective import (
    JudgedPairs,
    PreferenceObjective,
    agreement,
    in_batch_losses,
    pair_losses,
)
from seedpo.rewards.previews import FinishedImages, NoisyPreviews, PixelPairs, SeenPairs
from tests.rewards.toy_pairs import PROMPTS, BrightPairs, seeded, tiny_preference_model
from tests.toy_denoiser import ToyDenoiser


def comparison(count: int = 4, *, seed: int = 0, scale: float = 7.0) -> Comparison:
    generator = seeded(seed)
    text = torch.nn.functional.normalize(torch.randn(count, 5, generator=generator, dtype=torch.float64), dim=-1)
    images = torch.nn.functional.normalize(torch.randn(count, 2, 5, generator=generator, dtype=torch.float64), dim=-1)
    return Comparison(text=text, images=images, scale=torch.tensor(scale, dtype=torch.float64))


class TestLoss:
    def test_is_the_log_loss_of_the_margin_for_a_preference(self) -> None:
        said = comparison()
        margins = said.logits[:, 0] - said.logits[:, 1]
        wanted = torch.log1p(torch.exp(-margins))
        torch.testing.assert_close(pair_losses(said, torch.ones(4, dtype=torch.float64)), wanted)

    def test_of_a_tie_is_0_where_both_score_alike_and_grows_to_either_side(self) -> None:
        said, tie = comparison(), torch.full((4,), 0.5, dtype=torch.float64)
        alike = Comparison(text=said.text, images=said.images[:, :1].expand(-1, 2, -1), scale=said.scale)
        torch.testing.assert_close(pair_losses(alike, tie), torch.zeros(4, dtype=torch.float64))
        swapped = Comparison(text=said.text, images=said.images.flip(1), scale=said.scale)
        torch.testing.assert_close(pair_losses(said, tie), pair_losses(swapped, tie))
        assert (pair_losses(said, tie) > 0).all()

    @given(st.floats(0.0, 1.0))
    def test_is_never_below_0(self, probability: float) -> None:
        assert (pair_losses(comparison(), torch.full((4,), probability, dtype=torch.float64)) > -1e-9).all()

    def test_in_batch_negatives_are_those_of_the_published_code(self) -> None:
        """Written down again from its formulas: images against texts, texts against all images."""
        said, chosen = comparison(3), torch.tensor([1.0, 0.5, 1.0], dtype=torch.float64)
        every = said.images.transpose(0, 1).reshape(6, -1)
        text_logits, image_logits = said.scale * said.text @ every.T, said.scale * every @ said.text.T
        for row in range(3):
            image = [image_logits[row + side * 3].softmax(0)[row].log() for side in (0, 1)]
            text = [text_logits[row].softmax(0)[row + side * 3].log() for side in (0, 1)]
            label = (chosen[row], 1 - chosen[row])
            tie = math.log(0.5) if chosen[row] == 0.5 else 0.0
            wanted = (
                -sum(y * p for y, p in zip(label, image, strict=True))
                - sum(y * p for y, p in zip(label, text, strict=True))
                + tie
            ) / 2
            torch.testing.assert_close(in_batch_losses(said, chosen)[row], wanted)

    @pytest.mark.parametrize("in_batch", [False, True])
    def test_weights_are_those_of_the_published_code(self, in_batch: bool) -> None:
        """PickScore's `calc_loss`, written down again in numpy: sum(w L) with w = (1 / n) / sum(1 / n)."""
        said, chosen, counts = comparison(4), np.array([1.0, 0.5, 1.0, 1.0]), [1, 3, 7, 2]
        text, images, scale = said.text.numpy(), said.images.numpy(), said.scale.numpy()
        every = np.concatenate([images[:, 0], images[:, 1]])
        to_texts, to_images = scale * every @ text.T, scale * text @ every.T
        rows = np.arange(4)

        def cross_entropy(logits: Any, labels: Any) -> Any:
            return np.log(np.exp(logits).sum(1)) - logits[rows, labels]

        if in_batch:
            text_losses = [cross_entropy(to_images, rows + 4 * side) for side in (0, 1)]
            image_losses = [cross_entropy(part, rows) for part in np.split(to_texts, 2)]
        else:
            pair = np.stack([to_images[rows, rows], to_images[rows, rows + 4]], 1)
            text_losses = [cross_entropy(pair, np.full(4, side)) for side in (0, 1)]
        loss = chosen * text_losses[0] + (1 - chosen) * text_losses[1] + np.where(chosen == 0.5, np.log(0.5), 0)
        if in_batch:
            loss = (loss + chosen * image_losses[0] + (1 - chosen) * image_losses[1]) / 2
        weight = 1 / np.array(counts)
        wanted = (loss * (weight / weight.sum())).sum()
        objective = PreferenceObjective(
            FinishedImages(), list, in_batch_negatives=in_batch, counts=lambda row: counts[row]
        )
        weights = torch.tensor([1.0 / objective.counts(row) for row in range(4)], dtype=torch.float64)
        judged = JudgedPairs(comparison=said, chosen_probability=torch.tensor(chosen), weights=weights, timestep=None)
        output = objective.joint_loss(judged)
        assert output.weights is not None
        found = (output.weights * output.losses).sum() / output.weights.sum()
        assert float(found) == pytest.approx(wanted, rel=1e-12)

    def test_agreement_with_ties_and_equal_scores(self) -> None:
        margins = torch.tensor([2.0, -1.0, 0.0, 3.0])
        assert agreement(margins, torch.tensor([1.0, 1.0, 1.0, 0.5])).tolist() == [1.0, 0.0, 0.5, 0.5]

    def test_gradients_are_those_of_a_plain_computation(self, tmp_path: Path) -> None:
        """The method on a batch, against logits computed one image at a time."""
        pairs, model = BrightPairs(4, tie_every=3), tiny_preference_model(tmp_path, step_aware=False)
        batch = OfflinePairs(PixelPairs(pairs, size=8), batch_size=4, seed=0).next_batch()
        output = PreferenceObjective(FinishedImages(), pairs.prompts).loss(model, batch, generator=seeded())
        output.losses.sum().backward()
        found = {name: value.grad.clone() for name, value in model.trainable_parameters().items()}
        model.clip.zero_grad()
        total = torch.zeros(())
        assert batch.pair is not None
        for place, row in enumerate(batch.pair.tolist()):
            sides = [batch.chosen_latents[place], batch.rejected_latents[place]]
            ids = model.tokenizer([pairs.prompt(row)], padding="max_length", max_length=12, return_tensors="pt")
            scores = torch.stack(
                [
                    model.clip(
                        input_ids=ids.input_ids, pixel_values=side[None], attention_mask=ids.attention_mask
                    ).logits_per_image[0, 0]
                    for side in sides
                ]
            )
            weight = 0.5 if row % 3 == 0 else 1.0
            total = total - weight * scores.log_softmax(0)[0] - (1 - weight) * scores.log_softmax(0)[1]
        total.backward()
        for name, value in model.trainable_parameters().items():
            torch.testing.assert_close(found[name], value.grad, rtol=1e-3, atol=1e-5, msg=name)

    def test_metrics_have_trl_names_and_the_time_step(self, tmp_path: Path) -> None:
        model, pairs, denoiser = tiny_preference_model(tmp_path), BrightPairs(6), ToyDenoiser()
        batch = OfflinePairs(EncodedPairs(pairs, denoiser), batch_size=6, seed=0).next_batch()
        views = NoisyPreviews(denoiser, size=8, guidance_scale=1.0)
        output = PreferenceObjective(views, pairs.prompts).loss(model, batch, generator=seeded())
        assert set(output.metrics) == {
            *(f"rewards/{name}" for name in ("chosen", "rejected", "margins", "accuracies")),
            "timestep",
        }
        assert all(value.shape == (6,) and not value.requires_grad for value in output.metrics.values())
        assert output.losses.requires_grad
        assert not any(latents.requires_grad for latents, _ in denoiser.calls)


def train(model: PreferenceModel, steps: int, *, noisy: bool) -> None:
    pairs, denoiser = BrightPairs(64), ToyDenoiser()
    encoder = EncodedPairs(pairs, denoiser) if noisy else PixelPairs(pairs, size=8)
    views = NoisyPreviews(denoiser, size=8, guidance_scale=1.0, clean_share=0.25) if noisy else FinishedImages()
    source = OfflinePairs(encoder, batch_size=16, seed=0)
    objective, generator = PreferenceObjective(views, pairs.prompts), seeded()
    optimizer = torch.optim.AdamW(model.trainable_parameters().values(), lr=3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        objective.loss(model, source.next_batch(), generator=generator).losses.mean().backward()
        optimizer.step()


def accuracies(model: PreferenceModel, *, noisy: bool, **settings: int | None) -> dict[str, float]:
    pairs, denoiser = BrightPairs(60, seed=9, tie_every=settings.get("tie_every")), ToyDenoiser()
    encoder = EncodedPairs(pairs, denoiser) if noisy else PixelPairs(pairs, size=8)
    views = NoisyPreviews(denoiser, size=8, guidance_scale=1.0, timesteps=(0, 10)) if noisy else FinishedImages()
    evaluation = PreferenceEvaluation(encoder, pairs.prompts, views, rows=range(60), batch_size=25)
    world = settings.get("world") or 1
    parts = [evaluation.draw(model, rank=rank, world=world) for rank in range(world)]
    return dict(evaluation.measure(parts, step=3, folder=Path()))


class TestLearning:
    @pytest.mark.parametrize("noisy", [True, False])
    def test_a_known_attribute_is_learnt(self, tmp_path: Path, noisy: bool) -> None:
        model = tiny_preference_model(tmp_path, step_aware=noisy)
        before = accuracies(model, noisy=noisy)
        train(model, 60, noisy=noisy)
        after = accuracies(model, noisy=noisy)
        names = ["accuracy/t=0", "accuracy/t=10"] if noisy else ["accuracy"]
        assert all(before[name] < 0.8 for name in names)
        assert all(after[name] > 0.85 for name in names)
        assert all(after[f"{name}/low"] < after[name] <= after[f"{name}/high"] for name in names)


class TestEvaluation:
    def test_is_the_same_on_any_number_of_processes(self, tmp_path: Path) -> None:
        model = tiny_preference_model(tmp_path)
        assert accuracies(model, noisy=True, world=2) == pytest.approx(accuracies(model, noisy=True))

    def test_leaves_ties_out(self, tmp_path: Path) -> None:
        model = tiny_preference_model(tmp_path)
        assert accuracies(model, noisy=True, tie_every=3)["held_out_pairs"] == 40

    def test_scores_that_are_not_finite_end_the_run(self, tmp_path: Path) -> None:
        model = tiny_preference_model(tmp_path)
        with torch.no_grad():
            model.clip.logit_scale.fill_(math.nan)
        with pytest.raises(TrainingDiverged, match=r"step 3.*not finite"):
            accuracies(model, noisy=True)


class TestModel:
    def test_tokens_are_made_once_per_prompt(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        model = tiny_preference_model(tmp_path)
        calls: list[object] = []
        original = model.tokenizer.__class__.__call__

        def counted(self: object, *given: object, **named: object) -> object:
            calls.append(given)
            return original(self, *given, **named)

        monkeypatch.setattr(model.tokenizer.__class__, "__call__", counted)
        seen = SeenPairs(pixels=torch.rand(4, 2, 3, 8, 8, generator=seeded()), timestep=torch.tensor([0, 1, 2, 3]))
        for _ in range(3):
            model.compare(seen, [PROMPTS[0], PROMPTS[1], PROMPTS[0], PROMPTS[1]])
        assert len(calls) == 2

    def test_what_is_saved_is_a_reward(self, tmp_path: Path) -> None:
        from seedpo.rewards.clip_score import load_reward

        images = torch.rand(3, 3, 8, 8, generator=seeded())
        for step_aware in (True, False):
            model = tiny_preference_model(tmp_path / "tokens", step_aware=step_aware)
            folder = tmp_path / str(step_aware)
            folder.mkdir()
            model.save(folder)
            pixels = PixelPairs(BrightPairs(1), size=8)
            seen = torch.cat([pixels._prepared(image, False) for image in images])
            with torch.no_grad():
                said = model.compare(SeenPairs(pixels=torch.stack([seen, seen], 1)), PROMPTS[:3]).logits[:, 0]
            scores = load_reward(str(folder))((images * 255).round() / 255, PROMPTS[:3])
            torch.testing.assert_close(scores, said, rtol=1e-4, atol=1e-4)

    def test_loading_fills_the_tensors_that_are_trained(self, tmp_path: Path) -> None:
        model = tiny_preference_model(tmp_path / "tokens")
        (tmp_path / "saved").mkdir()
        model.save(tmp_path / "saved")
        other = tiny_preference_model(tmp_path / "tokens", seed=2)
        before = other.trainable_parameters()
        other.load(tmp_path / "saved")
        after = other.trainable_parameters()
        assert all(after[name] is value for name, value in before.items())
        assert all(torch.equal(after[name], value) for name, value in model.trainable_parameters().items())
