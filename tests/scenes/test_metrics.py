from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from seedpo.metrics.named import build_prompt_metric
from seedpo.metrics.records import Metric, Samples
from seedpo.scenes.drawing import VIVIDNESS, draw
from seedpo.scenes.metrics import free_variances, readings
from seedpo.scenes.oracle import FREE, Readings
from seedpo.scenes.taste import LIKING, true_utility
from tests.scenes.drawings import one_scene, scaled, some_drawings, some_scenes

STAR = "a large red star on a white background"
RING = "a small blue ring on a black background"
METRICS = TRUTH, ATTRIBUTE_ACCURACY, RESIDUAL, FREE_SPREAD, RIGHT_SPREAD = tuple(
    build_prompt_metric(name)
    for name in ("truth", "attribute_accuracy", "residual", "free_spread", "free_spread_right")
)


def samples(images: Tensor, *prompts: str) -> Samples:
    """Images (P K, 3, H, W), K for each prompt."""
    return Samples(images=images.view(len(prompts), -1, 3, 32, 32), prompts=list(prompts))


def fresh(images_per_prompt: int, *prompts: str, seed: int = 0) -> Samples:
    repeated = [prompt for prompt in prompts for _ in range(images_per_prompt)]
    return samples(some_drawings(repeated, seed=seed), *prompts)


def with_free(free: Tensor, right: tuple[bool, ...] = ()) -> Samples:
    """Samples of which the oracle is said to have read the given free attributes, (P, K, 5); all right if not said."""
    prompts, count, _ = free.shape
    blank = Samples(images=torch.zeros(prompts, count, 3, 32, 32), prompts=[STAR] * prompts)
    rows = prompts * count
    blank._derived[readings] = Readings(
        correct=torch.tensor(right or (True,) * rows)[:, None].expand(-1, 4),
        residual=torch.zeros(rows),
        vividness=torch.zeros(rows),
        free=free.flatten(0, 1),
        scenes=torch.zeros(rows, 4, dtype=torch.int64),
    )
    return blank


@pytest.fixture(scope="module")
def drawn() -> Samples:
    """32 drawings of each of two prompts."""
    return fresh(32, STAR, RING)


class TestOnDrawings:
    def test_truth_is_the_mean_utility(self, drawn: Samples) -> None:
        scenes = some_scenes([STAR] * 32 + [RING] * 32)
        wanted = LIKING * scaled(scenes.vividness, VIVIDNESS).view(2, 32).mean(1)
        torch.testing.assert_close(TRUTH.per_prompt(drawn), wanted, rtol=0, atol=0.15)

    def test_truth_is_that_of_the_reward(self) -> None:
        few = fresh(2, STAR, RING, seed=1)
        torch.testing.assert_close(TRUTH.per_prompt(few), true_utility(*few.flat()).view(2, 2).mean(1))

    def test_all_attributes_are_right(self, drawn: Samples) -> None:
        assert ATTRIBUTE_ACCURACY.per_prompt(drawn).tolist() == [1.0, 1.0]

    def test_nothing_is_left_over(self, drawn: Samples) -> None:
        assert (RESIDUAL.per_prompt(drawn) < 5e-3).all()

    def test_the_spread_is_that_of_the_data(self, drawn: Samples) -> None:
        """Relative variance 1 within four standard errors of 32 uniform numbers (0.16 each)."""
        variances = free_variances(drawn)
        known = ~torch.isnan(variances)
        assert known.tolist() == [[True] * 5, [True, True, False, True, True]]
        assert (variances[known] - 1).abs().max() < 0.64
        means = FREE_SPREAD.per_prompt(drawn)
        torch.testing.assert_close(means, torch.ones(2), rtol=0, atol=0.35)
        assert float(means.mean()) ** 0.5 == pytest.approx(1.0, abs=0.15)

    def test_the_oracle_reads_once_for_all_metrics(self, monkeypatch: pytest.MonkeyPatch) -> None:
        few = fresh(2, STAR)
        calls = []
        read = few.derive(readings)
        monkeypatch.setattr("seedpo.scenes.metrics.read_images", lambda *_: calls.append(1))
        for metric in METRICS:
            metric.per_prompt(few)
        assert not calls
        assert few.derive(readings) is read

    def test_copies_have_no_spread(self) -> None:
        copies = samples(draw(one_scene(STAR)).repeat(3, 1, 1, 1), STAR)
        assert FREE_SPREAD.per_prompt(copies).item() == pytest.approx(0, abs=1e-6)

    def test_wrong_images_count_by_prompt(self) -> None:
        right = one_scene(STAR)
        half = samples(torch.cat([draw(right), draw(one_scene(RING)), draw(right), draw(right)]), STAR, STAR)
        assert ATTRIBUTE_ACCURACY.per_prompt(half).tolist() == [0.5, 1.0]
        truth, residual = TRUTH.per_prompt(half), RESIDUAL.per_prompt(half)
        assert truth[0] < 0 < truth[1]
        assert residual[0] > 0.05 > residual[1]

    def test_images_without_an_object_have_no_spread_to_tell(self) -> None:
        blank = samples(torch.full((2, 3, 32, 32), 0.95), STAR)
        assert torch.isnan(free_variances(blank)).all()
        assert torch.isnan(FREE_SPREAD.per_prompt(blank)).all()
        assert ATTRIBUTE_ACCURACY.per_prompt(blank).item() == 0


class TestRightSpread:
    def test_wrong_images_do_not_count(self) -> None:
        """Two right stars are one drawing, whatever the ring; the third reading, of a wrong image, stands far off."""
        right, wrong = draw(one_scene(STAR)), draw(one_scene(RING))
        mixed = samples(torch.cat([right, right, wrong]), STAR)
        moved = with_free(torch.tensor([0.25, 0.75, 0.0])[None, :, None].repeat(1, 1, 5), right=(True, True, False))
        assert RIGHT_SPREAD.per_prompt(mixed).item() == pytest.approx(0, abs=1e-6)
        assert FREE_SPREAD.per_prompt(moved).item() > 1.1 * RIGHT_SPREAD.per_prompt(moved).item()
        assert RIGHT_SPREAD.per_prompt(moved).item() == pytest.approx(2 * 0.25**2 * 12)

    def test_it_is_the_free_spread_where_all_are_right(self, drawn: Samples) -> None:
        torch.testing.assert_close(RIGHT_SPREAD.per_prompt(drawn), FREE_SPREAD.per_prompt(drawn))

    def test_fewer_than_two_right_images_say_nothing(self) -> None:
        one = samples(torch.cat([draw(one_scene(STAR)), draw(one_scene(RING))]), STAR)
        assert torch.isnan(RIGHT_SPREAD.per_prompt(one)).all()


class TestClosedForms:
    def test_two_clusters(self) -> None:
        """Half at a and half at b: the unbiased variance of K numbers is (b - a)^2 / 4 K / (K - 1)."""
        free = torch.tensor([0.25, 0.75, 0.25, 0.75])[None, :, None].expand(1, 4, 5)
        wanted = 0.25**2 * 4 / 3 * 12
        torch.testing.assert_close(free_variances(with_free(free)), torch.full((1, 5), wanted))
        assert FREE_SPREAD.per_prompt(with_free(free)).item() == pytest.approx(wanted)

    def test_the_widest_spread(self) -> None:
        free = torch.tensor([0.0, 1.0])[None, :, None].expand(1, 2, 5)
        assert FREE_SPREAD.per_prompt(with_free(free)).item() == pytest.approx(6.0)

    def test_prompts_are_kept_apart(self) -> None:
        """Images that differ between prompts only have no spread."""
        free = torch.tensor([0.1, 0.9])[:, None, None].expand(2, 3, 5)
        torch.testing.assert_close(FREE_SPREAD.per_prompt(with_free(free)), torch.zeros(2))

    def test_what_cannot_be_read_is_left_out(self) -> None:
        free = torch.tensor([0.25, 0.75, math.nan, math.nan])[None, :, None].repeat(1, 1, 5)
        free[0, 1, 2] = math.nan  # one reading only: no variance
        variances = free_variances(with_free(free))
        wanted = torch.full((5,), 2 * 0.25**2 * 12)
        wanted[2] = math.nan
        torch.testing.assert_close(variances[0], wanted, equal_nan=True)
        assert FREE_SPREAD.per_prompt(with_free(free)).item() == pytest.approx(1.5)

    def test_uniform_readings_give_one(self) -> None:
        free = torch.rand(64, 16, 5, generator=torch.Generator().manual_seed(0))
        assert float(FREE_SPREAD.per_prompt(with_free(free)).mean()) == pytest.approx(1.0, abs=0.02)

    def test_finish_is_a_standard_deviation(self) -> None:
        assert FREE_SPREAD.facts.finish is RIGHT_SPREAD.facts.finish is math.sqrt

    def test_columns_are_named(self) -> None:
        free = torch.zeros(1, 2, 5)
        free[0, 1, FREE.index("shade")] = 1.0
        assert free_variances(with_free(free))[0].tolist() == pytest.approx([0, 0, 0, 0, 6.0])


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.facts.name)
def test_one_image_of_one_prompt(metric: Metric) -> None:
    one = fresh(1, STAR)
    values = metric.per_prompt(one)
    assert values.shape == (1,)
    assert bool(torch.isnan(values)) == (metric.facts.least_images > 1)
