from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from seedpo.errors import DataError
from seedpo.scenes.drawing import (
    HUE_JITTER,
    POLYGONS,
    ROTATION,
    SHADE,
    VIVIDNESS,
    Scenes,
    draw,
    position_range,
)
from seedpo.scenes.oracle import FREE, NAMED, Readings, read_images
from seedpo.scenes.prompts import SHAPES
from seedpo.scenes.taste import LIKING, true_utility, utility
from tests.scenes.drawings import ALL_PROMPTS, free_attributes, one_scene, scaled, seeded, some_drawings, some_scenes

PROMPT = "a large red circle on a gray background"


@dataclass(frozen=True)
class Read:
    """Drawings of all prompts and what the oracle reads from them."""

    scenes: Scenes
    images: Tensor
    readings: Readings

    @property
    def truth(self) -> Tensor:
        wrong = (~self.readings.correct).sum(1)
        return utility(vividness=self.readings.vividness, wrong=wrong, residual=self.readings.residual)


@pytest.fixture(scope="module")
def read() -> Read:
    scenes = some_scenes(seed=5)
    images = draw(scenes)
    return Read(scenes, images, read_images(images, ALL_PROMPTS))


class TestLegitimateDrawings:
    def test_every_attribute_of_every_prompt_is_read_right(self, read: Read) -> None:
        wrong = [
            (prompt, name)
            for prompt, row in zip(ALL_PROMPTS, read.readings.correct.tolist(), strict=True)
            for name, correct in zip(NAMED, row, strict=True)
            if not correct
        ]
        assert not wrong
        seen = [read.scenes.shape, read.scenes.colour, read.scenes.size, read.scenes.background]
        assert torch.equal(read.readings.scenes, torch.stack(seen, 1))

    def test_nothing_is_left_over(self, read: Read) -> None:
        assert read.readings.residual.max() < 2e-3

    @pytest.mark.parametrize(
        ("name", "tolerance"), [("x", 0.01), ("y", 0.01), ("rotation", 0.02), ("hue_jitter", 0.01), ("shade", 0.01)]
    )
    def test_free_attributes_are_recovered(self, read: Read, name: str, tolerance: float) -> None:
        column = FREE.index(name)
        wanted = free_attributes(read.scenes)[:, column]
        torch.testing.assert_close(read.readings.free[:, column], wanted, rtol=0, atol=tolerance, equal_nan=True)

    def test_vividness_is_recovered(self, read: Read) -> None:
        wanted = scaled(read.scenes.vividness, VIVIDNESS)
        torch.testing.assert_close(read.readings.vividness, wanted, rtol=0, atol=0.03)

    def test_rotation_is_unknown_only_where_it_cannot_be_seen(self, read: Read) -> None:
        turns = torch.tensor([name in POLYGONS for name in SHAPES])[read.scenes.shape]
        assert torch.equal(torch.isnan(read.readings.free[:, FREE.index("rotation")]), ~turns)
        assert not torch.isnan(read.readings.free[:, [0, 1, 3, 4]]).any()

    def test_a_little_noise_does_not_matter(self, read: Read) -> None:
        rows = torch.arange(0, 480, 7)
        noise = 0.02 * torch.randn(len(rows), 3, 32, 32, generator=seeded())
        readings = read_images((read.images[rows] + noise).clamp(0, 1), [ALL_PROMPTS[row] for row in rows.tolist()])
        assert readings.correct.all()
        torch.testing.assert_close(readings.residual, torch.full((len(rows),), 0.02), rtol=0, atol=0.005)
        torch.testing.assert_close(readings.vividness, read.readings.vividness[rows], rtol=0, atol=0.1)

    def test_images_are_read_one_by_one_as_together(self, read: Read) -> None:
        for row in (0, 101, 333):
            alone = read_images(read.images[row : row + 1], ALL_PROMPTS[row : row + 1])
            assert torch.equal(alone.correct[0], read.readings.correct[row])
            torch.testing.assert_close(alone.residual[0], read.readings.residual[row], rtol=0, atol=1e-4)
            torch.testing.assert_close(alone.free[0], read.readings.free[row], rtol=0, atol=1e-3, equal_nan=True)


class TestOtherPrompts:
    """The image is read as it is, whatever the prompt says of it."""

    @pytest.mark.parametrize(
        ("prompt", "wrong"),
        [
            ("a large red square on a gray background", ["shape"]),
            ("a large blue circle on a gray background", ["colour"]),
            ("a small red circle on a gray background", ["size"]),
            ("a large red circle on a navy background", ["background"]),
            ("a small green star on a white background", list(NAMED)),
        ],
    )
    def test_each_wrong_attribute_is_named(self, prompt: str, wrong: list[str]) -> None:
        image = draw(one_scene(PROMPT))
        reading = read_images(image, [prompt])
        assert [name for name, correct in zip(NAMED, reading.correct[0].tolist(), strict=True) if not correct] == wrong
        assert reading.residual.item() > 0.03
        right = read_images(image, [PROMPT])
        assert torch.equal(reading.scenes, right.scenes)
        assert torch.equal(reading.free.nan_to_num(-1), right.free.nan_to_num(-1))

    @pytest.mark.parametrize("vividness", [0.0, 0.2, 1.0])
    def test_vividness_ends_at_its_range(self, vividness: float) -> None:
        """A paler or more glaring colour than any legitimate one earns no more, and is left over as residual."""
        reading = read_images(draw(one_scene(PROMPT, vividness=vividness)), [PROMPT])
        assert reading.vividness.item() == float(vividness > 0.9)
        assert reading.residual.item() > 0.02


def constant(value: tuple[float, float, float]) -> Callable[[], Tensor]:
    return lambda: torch.tensor(value)[:, None, None].expand(3, 32, 32).clone()


def checkerboard(side: int, one: tuple[float, float, float], other: tuple[float, float, float]) -> Tensor:
    rows = torch.arange(32) // side
    mask = ((rows[:, None] + rows) % 2).float()
    return mask * constant(one)() + (1 - mask) * constant(other)()


def stripes(period: float) -> Tensor:
    """Saturated hues that run over the image."""
    phase = torch.arange(32) / period * 2 * torch.pi
    waves = torch.stack([torch.sin(phase + turn) for turn in (0.0, 2.1, 4.2)])
    return (0.5 + 0.5 * waves)[:, None].expand(3, 32, 32)


def blob(sharpness: float) -> Tensor:
    """A soft red spot on gray: vivid in the middle, without an edge."""
    centre = torch.arange(32) - 15.5
    weight = torch.exp(-(centre.square()[:, None] + centre.square()) / sharpness)
    return weight * constant((1.0, 0.0, 0.0))() + (1 - weight) * constant((0.52, 0.52, 0.52))()


def drawing(prompt: str = PROMPT, **changes: float) -> Tensor:
    return draw(one_scene(prompt, **changes))[0]


def two_objects() -> Tensor:
    left = drawing("a small red circle on a gray background", x=8.0)
    right = drawing("a small red circle on a gray background", x=24.0)
    return torch.cat([left[:, :, :16], right[:, :, 16:]], 2)


def second_object(prompt: str) -> Tensor:
    image = drawing("a small red circle on a gray background", x=8.0)
    return torch.cat([image[:, :, :16], drawing(prompt, x=24.0)[:, :, 16:]], 2)


def half_missing(prompt: str, **changes: float) -> Tensor:
    image = drawing(prompt, **changes)
    image[:, :, 16:] = image[:, :1, :1]
    return image


def dotted() -> Tensor:
    """The right drawing with a black dot of 4 x 4 pixels in the middle of its object."""
    image = drawing()
    image[:, 14:18, 14:18] = 0.0
    return image


def framed() -> Tensor:
    """The right drawing inside a frame of the right background; all around it something else."""
    image = drawing("a small red circle on a gray background")
    image[:, 1:6, 1:-1] = torch.tensor([0.0, 1.0, 0.0])[:, None, None]
    return image


def ramp() -> Tensor:
    """The right drawing on a background that fades."""
    image = drawing()
    return (image + torch.linspace(-0.3, 0.3, 32)).clamp(0, 1)


def noisy(image: Tensor, scale: float) -> Tensor:
    return (image + scale * torch.randn(image.shape, generator=seeded(2))).clamp(0, 1)


def blurred(image: Tensor) -> Tensor:
    for _ in range(4):
        image = avg_pool2d(torch.nn.functional.pad(image[None], (1, 1, 1, 1), mode="replicate"), 3, stride=1)[0]
    return image


SMALL = "a small red circle on a gray background"
RED, GREEN, GRAY = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.52, 0.52, 0.52)

ATTEMPTS: dict[str, tuple[str, Callable[[], Tensor]]] = {
    "black": (PROMPT, constant((0.0, 0.0, 0.0))),
    "the bare background": (PROMPT, constant(GRAY)),
    "all red": (PROMPT, constant(RED)),
    "uniform noise": (PROMPT, lambda: torch.rand(3, 32, 32, generator=seeded())),
    "fine checkerboard": (PROMPT, lambda: checkerboard(1, RED, GRAY)),
    "coarse checkerboard": (PROMPT, lambda: checkerboard(8, RED, GRAY)),
    "glaring checkerboard": (PROMPT, lambda: checkerboard(2, RED, GREEN)),
    "rainbow": (PROMPT, lambda: stripes(32.0)),
    "fine rainbow": (PROMPT, lambda: stripes(5.0)),
    "soft blob": (PROMPT, lambda: blob(60.0)),
    "two objects": (SMALL, two_objects),
    "half of a large object": (PROMPT, lambda: half_missing(PROMPT)),
    "wrong background": (PROMPT, lambda: drawing("a large red circle on a brown background")),
    "fading background": (PROMPT, ramp),
    "a bar over the image": (SMALL, framed),
    "wrong shape": (PROMPT, lambda: drawing("a large red cross on a gray background")),
    "wrong size": (PROMPT, lambda: drawing(SMALL)),
    "wrong colour": (PROMPT, lambda: drawing("a large green circle on a gray background")),
    "strong noise": (PROMPT, lambda: noisy(drawing(), 0.2)),
    "upside down colours": (PROMPT, lambda: 1.0 - drawing()),
}
"""What a policy that pleases a learned reward might draw, with the prompt that it is drawn for."""

FLAWED: dict[str, tuple[str, Callable[[], Tensor]]] = {
    "softer blob": (PROMPT, lambda: blob(120.0)),
    "another object beside the right one": (SMALL, lambda: second_object("a small blue star on a gray background")),
    "half of a small object": (SMALL, lambda: half_missing(SMALL)),
    "a dot on the object": (PROMPT, dotted),
    "blur": (PROMPT, lambda: blurred(drawing())),
}
"""Vivid drawings with one flaw: worth more than a pale drawing, and much less than the same one without the flaw."""


@pytest.fixture(scope="module")
def worth() -> dict[str, float]:
    """What the oracle gives for each attempt; all are read together."""
    attempts = ATTEMPTS | FLAWED
    images = torch.stack([make() for _, make in attempts.values()])
    values = true_utility(images, [prompt for prompt, _ in attempts.values()])
    return dict(zip(attempts, values.tolist(), strict=True))


class TestHardToFool:
    @pytest.mark.parametrize("name", ATTEMPTS)
    def test_what_is_not_a_drawing_is_worth_less_than_every_drawing(
        self, read: Read, worth: dict[str, float], name: str
    ) -> None:
        assert worth[name] < float(read.truth.min()) - 0.5

    @pytest.mark.parametrize("name", FLAWED)
    def test_a_flaw_costs_a_third_of_all_vividness(self, worth: dict[str, float], name: str) -> None:
        """A vivid drawing without the flaw is worth 3."""
        assert worth[name] < LIKING - 1.0

    @pytest.mark.parametrize("strength", [0.01, 0.03, 0.1, 0.3])
    def test_each_attempt_costs_the_more_the_more_of_it_there_is(self, strength: float) -> None:
        image, pattern = drawing(), checkerboard(2, RED, GREEN)
        mixtures = [(1 - share) * image + share * pattern for share in (0.0, strength, 2 * strength)]
        worth = true_utility(torch.stack(mixtures), [PROMPT] * 3)
        assert worth[0] > worth[1] > worth[2]

    def test_no_small_change_of_a_vivid_drawing_is_worth_more(self) -> None:
        """Random directions from the best drawing of all lead nowhere better."""
        best = drawing(vividness=0.9)
        directions = torch.randn(32, 3, 8, 8, generator=seeded(4)).repeat_interleave(4, 2).repeat_interleave(4, 3)
        worth = true_utility((best + 0.05 * directions).clamp(0, 1), [PROMPT] * 32)
        assert worth.max() < float(true_utility(best[None], [PROMPT])) - 0.3


class TestTruthOfDrawings:
    def test_lies_between_0_and_3(self, read: Read) -> None:
        assert read.truth.min() > -0.03
        assert read.truth.max() <= LIKING

    def test_rises_with_vividness(self) -> None:
        prompts = ALL_PROMPTS[::40]
        scenes = some_scenes(prompts, seed=6)
        levels = torch.linspace(*VIVIDNESS, 4)
        worth = torch.stack(
            [true_utility(draw(replace(scenes, vividness=level.expand(len(scenes)))), prompts) for level in levels]
        )
        wanted = LIKING * scaled(levels, VIVIDNESS)
        torch.testing.assert_close(worth, wanted[:, None].expand_as(worth), rtol=0, atol=0.03)
        assert (worth.diff(dim=0) > 0.5).all()

    def test_does_not_depend_on_the_free_attributes(self, read: Read) -> None:
        """What vividness leaves unexplained is small and goes with no free attribute."""
        rest = read.truth - LIKING * scaled(read.scenes.vividness, VIVIDNESS)
        assert rest.abs().max() < 0.03
        free = free_attributes(read.scenes)
        for column, name in enumerate(FREE):
            known = ~torch.isnan(free[:, column])
            correlation = torch.corrcoef(torch.stack([read.truth[known], free[known, column]]))[0, 1]
            assert correlation.abs() < 0.2, name

    @pytest.mark.parametrize("name", ["x", "y", "rotation", "hue_jitter", "shade"])
    def test_the_ends_of_a_free_range_are_worth_the_same(self, name: str) -> None:
        prompt = "a large blue star on a white background"
        scene = one_scene(prompt)
        low, high = position_range(scene.shape, scene.radius)
        ends = {"rotation": ROTATION, "hue_jitter": HUE_JITTER, "shade": SHADE}.get(name, (low.item(), high.item()))
        images = torch.cat([draw(one_scene(prompt, **{name: value})) for value in ends])
        low_end, high_end = true_utility(images, [prompt] * 2).tolist()
        assert low_end == pytest.approx(high_end, abs=0.03)


class TestRefusals:
    def test_values_that_are_not_finite(self) -> None:
        for value in (torch.nan, torch.inf):
            image = some_drawings([PROMPT])
            image[0, 1, 5, 5] = value
            with pytest.raises(DataError, match="not finite"):
                read_images(image, [PROMPT])

    @pytest.mark.parametrize("shape", [(1, 3, 64, 64), (1, 1, 32, 32), (3, 32, 32), (2, 3, 32, 32)])
    def test_sizes(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(DataError, match=r"images of shape \(B, 3, 32, 32\), one per prompt; got"):
            read_images(torch.zeros(shape), [PROMPT])

    def test_prompts_of_another_world(self) -> None:
        with pytest.raises(DataError, match="is not a sentence of the embedded world"):
            read_images(torch.zeros(1, 3, 32, 32), ["a cat"])


def test_half_precision_and_gradients_are_taken(read: Read) -> None:
    image = read.images[:1].half().requires_grad_(True)
    reading = read_images(image, ALL_PROMPTS[:1])
    assert reading.correct.all()
    assert not reading.residual.requires_grad
    torch.testing.assert_close(reading.residual, read.readings.residual[:1], rtol=0, atol=1e-3)
