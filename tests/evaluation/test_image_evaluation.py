from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from seedpo.core.stats.bootstrap import mean_interval
from seedpo.errors import TrainingDiverged
from seedpo.evaluation.drawing import draw_samples, initial_latent
from seedpo.evaluation.image_evaluation import ImageEvaluation, interval_figures
from seedpo.evaluation.settings import EvaluationConfig
from seedpo.evaluation.sheets import save_sheet
from seedpo.metrics.catalogue import MetricEntry
from seedpo.metrics.records import Metric, Samples
from seedpo.protocols import Reward
from tests.toy_denoiser import ToyDenoiser

PROMPTS = ["a red star", "a large blue ring", "a green cross on a very long background"]
SETTINGS: dict[str, Any] = {"images_per_prompt": 2, "num_inference_steps": 3, "guidance_scale": 2.0, "seed": 7}


def evaluation(
    prompts: Sequence[str] = PROMPTS,
    *,
    rewards: dict[str, Reward] | None = None,
    metrics: dict[str, Metric] | None = None,
    **changes: Any,
) -> ImageEvaluation:
    config = EvaluationConfig(**(SETTINGS | changes))
    return ImageEvaluation(prompts, config=config, rewards=rewards or {}, metrics=metrics or {})


def brightness(images: Tensor, prompts: Sequence[str]) -> Tensor:
    return images.mean((1, 2, 3))


def metric(per_prompt: Any, **changes: Any) -> Metric:
    facts = MetricEntry(
        name="measured", target="", summary="", unit="", span="", family="quality", source="", **changes
    )
    return Metric(facts=facts, per_prompt=per_prompt)


def draw(prompts: Sequence[str] = PROMPTS, denoiser: ToyDenoiser | None = None, **changes: Any) -> Samples:
    return draw_samples(denoiser or ToyDenoiser(), prompts, EvaluationConfig(**(SETTINGS | changes)).drawing)


class TestLatents:
    def test_each_image_has_a_latent_of_its_own(self) -> None:
        latents = [
            initial_latent(prompt, image, (1, 2, 2), seed=seed)
            for seed in (0, 1)
            for prompt in range(5)
            for image in range(6)
        ]
        assert len({tuple(latent.flatten().tolist()) for latent in latents}) == 60
        assert torch.equal(latents[7], initial_latent(1, 1, (1, 2, 2), seed=0))

    def test_are_standard_normal(self) -> None:
        latents = torch.stack([initial_latent(prompt, 3, (4, 4, 4), seed=1) for prompt in range(400)])
        assert abs(float(latents.mean())) < 0.03
        assert float(latents.std()) == pytest.approx(1, abs=0.03)


class TestGeneration:
    def test_shape_range_and_prompts(self) -> None:
        samples = draw()
        assert samples.images.shape == (3, 2, 3, 8, 8)
        assert samples.prompts == PROMPTS
        assert samples.images.min() >= 0
        assert samples.images.max() <= 1

    def test_images_do_not_depend_on_the_others(self) -> None:
        wide = draw(images_per_prompt=4)
        narrow = draw(PROMPTS[:1], images_per_prompt=1)
        torch.testing.assert_close(narrow.images[0, 0], wide.images[0, 0])
        assert not torch.equal(wide.images[0, 0], wide.images[0, 1])

    def test_is_the_same_every_time(self) -> None:
        first, again = (draw() for _ in range(2))
        assert torch.equal(first.images, again.images)
        assert not torch.equal(first.images, draw(seed=8).images)

    def test_each_image_is_drawn_for_its_prompt(self) -> None:
        """The toy's colours grow lighter with the length of the prompt."""
        shift = [float(draw(["a" * letters], images_per_prompt=1).images.mean()) for letters in (1, 5, 10)]
        assert shift[0] < shift[1] < shift[2]

    def test_is_done_in_batches(self) -> None:
        denoiser = ToyDenoiser()
        draw(["a star"] * 33, denoiser, num_inference_steps=2, batch_size=64)
        assert [len(latents) for latents, _ in denoiser.calls] == [128, 128, 4, 4]  # both halves of the guidance

    def test_global_randomness_is_left_alone(self) -> None:
        torch.manual_seed(3)
        wanted = torch.rand(2)
        torch.manual_seed(3)
        draw()
        assert torch.equal(torch.rand(2), wanted)


class TestFigures:
    def test_every_reward_and_metric_has_a_mean_and_an_interval(self, tmp_path: Path) -> None:
        mean = metric(lambda samples: samples.images.mean((1, 2, 3, 4)))
        both = evaluation(rewards={"bright": brightness}, metrics={"measured": mean})
        figures = both(ToyDenoiser(), step=0, folder=tmp_path)
        assert set(figures) == {
            f"{name}{end}" for name in ("reward/bright", "measured") for end in ("", "/low", "/high")
        }
        assert figures["reward/bright"] == pytest.approx(figures["measured"], abs=1e-6)
        for name in ("reward/bright", "measured"):
            assert figures[f"{name}/low"] <= figures[name] <= figures[f"{name}/high"]

    def test_rewards_get_each_image_with_its_prompt(self, tmp_path: Path) -> None:
        asked: list[Any] = []

        def reward(images: Tensor, prompts: Sequence[str]) -> Tensor:
            asked.append((images, prompts))
            return torch.arange(6.0).half()

        figures = evaluation(rewards={"one": reward})(ToyDenoiser(), step=0, folder=tmp_path)
        ((images, prompts),) = asked
        assert images.shape == (6, 3, 8, 8)
        assert prompts == [prompt for prompt in PROMPTS for _ in range(2)]
        assert figures["reward/one"] == pytest.approx(2.5)
        assert figures["reward/one/low"] >= 0.5  # the least mean of a prompt

    def test_metrics_that_need_more_images_are_left_out(self, tmp_path: Path) -> None:
        pair = metric(lambda samples: torch.zeros(len(samples.prompts)), least_images=2)
        assert "measured" in evaluation(metrics={"measured": pair})(ToyDenoiser(), step=0, folder=tmp_path)
        alone = evaluation(metrics={"measured": pair}, images_per_prompt=1)
        assert "measured" not in alone(ToyDenoiser(), step=0, folder=tmp_path)

    def test_one_metric_with_weights_of_two_places_gives_two_figures(self, tmp_path: Path) -> None:
        places = {f"measured@weights/{n}": metric(lambda s, n=n: torch.full((len(s.prompts),), n)) for n in (1.0, 2.0)}
        figures = evaluation(metrics=places)(ToyDenoiser(), step=0, folder=tmp_path)
        assert [figures[name] for name in places] == [1.0, 2.0]
        stored = json.loads((tmp_path / "step-000000.json").read_text(encoding="utf-8"))
        assert stored == {name: [n] * len(PROMPTS) for n, name in zip((1.0, 2.0), places, strict=True)}

    def test_one_prompt_and_one_image(self, tmp_path: Path) -> None:
        one = evaluation(PROMPTS[:1], rewards={"bright": brightness}, images_per_prompt=1)
        figures = one(ToyDenoiser(), step=0, folder=tmp_path)
        assert figures["reward/bright"] == figures["reward/bright/low"] == figures["reward/bright/high"]

    def test_images_that_are_not_finite(self, tmp_path: Path) -> None:
        denoiser = ToyDenoiser()
        denoiser.decode = lambda latents: latents * math.nan  # type: ignore[method-assign]
        with pytest.raises(TrainingDiverged, match="step 40: the evaluation's images are not finite"):
            evaluation()(denoiser, step=40, folder=tmp_path / "samples")
        assert not (tmp_path / "samples").exists()

    def test_files(self, tmp_path: Path) -> None:
        evaluation()(ToyDenoiser(), step=20, folder=tmp_path / "samples")
        files = sorted(path.name for path in (tmp_path / "samples").iterdir())
        assert files == ["index.json", "scores-000020.json", "step-000020.json", "step-000020.png"]
        index = json.loads((tmp_path / "samples" / "index.json").read_text(encoding="utf-8"))
        assert index == {"tile": 8, "columns": 2, "prompts": PROMPTS}

    def test_figures_are_stored_before_they_are_averaged(self, tmp_path: Path) -> None:
        values = torch.arange(len(PROMPTS), dtype=torch.float32)
        values[0] = math.nan
        metrics = {"measured": metric(lambda samples: values)}
        figures = evaluation(metrics=metrics)(ToyDenoiser(), step=3, folder=tmp_path)
        stored = json.loads((tmp_path / "step-000003.json").read_text(encoding="utf-8"))
        assert all(len(row) == len(PROMPTS) for row in stored.values())
        assert stored["measured"] == [None, *values[1:].tolist()]
        assert figures["measured"] == pytest.approx(float(values[1:].mean()))


class TestSheet:
    def test_tile_r_c_is_image_c_of_prompt_r(self, tmp_path: Path) -> None:
        images = torch.rand(3, 4, 3, 5, 6, generator=torch.Generator().manual_seed(0))
        save_sheet(images, tmp_path / "sheet.png")
        with Image.open(tmp_path / "sheet.png") as sheet:
            assert sheet.size == (4 * 6, 3 * 5)
            pixels = np.asarray(sheet)
        for row in range(3):
            for column in range(4):
                tile = pixels[row * 5 : (row + 1) * 5, column * 6 : (column + 1) * 6]
                wanted = (images[row, column].permute(1, 2, 0) * 255).round().byte().numpy()
                assert (tile == wanted).all(), (row, column)

    def test_of_an_evaluation(self, tmp_path: Path) -> None:
        evaluation()(ToyDenoiser(), step=0, folder=tmp_path)
        samples = draw()
        with Image.open(tmp_path / "step-000000.png") as sheet:
            corner = np.asarray(sheet)[16:24, 8:16]
        assert (corner == (samples.images[2, 1].permute(1, 2, 0) * 255).round().byte().numpy()).all()


def test_figures_are_the_mean_and_the_ends_of_its_interval() -> None:
    values = torch.tensor([1.0, 4.0, math.nan, 9.0])
    for finish in (None, math.sqrt):
        interval = mean_interval(values.double().numpy(), seed=3, finish=finish)
        wanted = {"x": interval.mean, "x/low": interval.low, "x/high": interval.high}
        assert interval_figures("x", values, seed=3, finish=finish) == wanted
    assert interval_figures("x", torch.tensor([math.nan, math.nan]), seed=0) == {}


def test_metrics_share_what_they_derive(tmp_path: Path) -> None:
    calls = []

    def derived(samples: Samples) -> Tensor:
        calls.append(1)
        return samples.images.mean((1, 2, 3, 4))

    metrics = {
        "one": metric(lambda samples: samples.derive(derived)),
        "two": metric(lambda samples: 2 * samples.derive(derived)),
    }
    evaluation(metrics=metrics)(ToyDenoiser(), step=0, folder=tmp_path)
    assert len(calls) == 1
