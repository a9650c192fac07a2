from __future__ import annotations

import colorsys
import itertools
import math
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from seedpo.errors import DataError
from seedpo.scenes.drawing import (
    BACKGROUND_RGB,
    CIRCLES,
    EXTENT,
    HUE_JITTER,
    HUES,
    IMAGE_SIZE,
    MARGIN,
    POLYGONS,
    RADIUS,
    ROTATION,
    SHADE,
    VIVIDNESS,
    Scenes,
    background_rgb,
    coverage,
    draw,
    hsv_to_rgb,
    object_rgb,
    position_range,
    sample_scenes,
)
from seedpo.scenes.prompts import BACKGROUNDS, COLOURS, SHAPES, SIZES
from tests.scenes.drawings import ALL_PROMPTS, free_attributes, one_scene, scaled, seeded, some_drawings, some_scenes

Corners = list[tuple[float, float]]


def edges(corners: Corners) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    return list(zip(corners, corners[1:] + corners[:1], strict=True))


def polygon_area(corners: Corners) -> float:
    """The shoelace formula; positive where the corners run clockwise on an image whose y points down."""
    return sum(ax * by - bx * ay for (ax, ay), (bx, by) in edges(corners)) / 2


def unit_area(shape: str) -> float:
    if shape in POLYGONS:
        return polygon_area(POLYGONS[shape])
    outer, inner = CIRCLES[shape]
    return math.pi * (outer**2 - inner**2)


def masks(shape: str, count: int, **values: Tensor | float) -> Tensor:
    """Masks near the middle of the image."""
    given: dict[str, Tensor | float] = {"x": 16.0, "y": 16.0, "radius": 8.0, "rotation": 0.0} | values
    return coverage(
        shape, **{name: torch.as_tensor(value, dtype=torch.float32).expand(count) for name, value in given.items()}
    )


def borders(images: Tensor) -> Tensor:
    """The outermost pixels, (B, 3, 4 (H - 1))."""
    ring = torch.ones(IMAGE_SIZE, IMAGE_SIZE, dtype=torch.bool)
    ring[1:-1, 1:-1] = False
    return images[:, :, ring]


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return some_scenes()


@pytest.fixture(scope="module")
def images(scenes: Scenes) -> Tensor:
    return draw(scenes)


class TestImages:
    def test_shape_and_range(self, images: Tensor) -> None:
        assert images.shape == (480, 3, 32, 32)
        assert images.dtype == torch.float32
        assert images.min() >= 0
        assert images.max() <= 1

    def test_the_border_is_the_named_background(self, scenes: Scenes, images: Tensor) -> None:
        wanted = torch.tensor([BACKGROUND_RGB[d.background] for d in scenes.descriptions()])
        assert torch.equal(background_rgb(scenes), wanted)
        torch.testing.assert_close(borders(images), wanted[:, :, None].expand(-1, -1, 124), rtol=0, atol=1e-5)

    def test_the_middle_of_a_solid_object_is_its_colour(self) -> None:
        for shape in set(SHAPES) - {"ring"}:
            scene = one_scene(f"a large blue {shape} on a white background")
            wanted = colorsys.hsv_to_rgb(225 / 360, 0.9, 0.85)
            torch.testing.assert_close(draw(scene)[0, :, 16, 16], torch.tensor(wanted), rtol=0, atol=1e-6)

    def test_a_ring_has_a_hole(self) -> None:
        scene = one_scene("a large blue ring on a white background")
        torch.testing.assert_close(draw(scene)[0, :, 16, 16], torch.full((3,), 0.95))

    def test_one_row_at_a_time_is_the_same(self, scenes: Scenes, images: Tensor) -> None:
        rows = torch.tensor([3, 77, 401])
        for row in rows.split(1):
            torch.testing.assert_close(draw(scenes[row]), images[row], rtol=0, atol=1e-6)

    def test_anti_aliasing_makes_steps_of_less_than_a_pixel_visible(self) -> None:
        for shape in SHAPES:
            still, moved = masks(shape, 2, x=torch.tensor([16.0, 16.1]))
            step = (moved - still).abs()
            assert 0 < step.max() < 0.2, shape
            assert ((still > 0.1) & (still < 0.9)).sum() > 10, shape


class TestShapes:
    @pytest.mark.parametrize("shape", SHAPES)
    def test_area(self, shape: str) -> None:
        generator = seeded()
        x, y = 15 + 2 * torch.rand(2, 64, generator=generator)
        rotation = ROTATION[0] + (ROTATION[1] - ROTATION[0]) * torch.rand(64, generator=generator)
        for radius in (*RADIUS["small"], *RADIUS["large"]):
            drawn = masks(shape, 64, x=x, y=y, radius=radius, rotation=rotation * (shape in POLYGONS)).sum((1, 2))
            wanted = abs(unit_area(shape)) * radius**2
            assert float(drawn.mean()) == pytest.approx(wanted, rel=0.01)
            torch.testing.assert_close(drawn, torch.full((64,), wanted), rtol=0.03, atol=0)

    @pytest.mark.parametrize("shape", SHAPES)
    def test_the_centroid_is_the_position(self, shape: str) -> None:
        generator = seeded()
        x, y = 14 + 4 * torch.rand(2, 32, generator=generator)
        drawn = masks(shape, 32, x=x, y=y, rotation=17.0 * (shape in POLYGONS))
        centres = torch.arange(IMAGE_SIZE) + 0.5
        area = drawn.sum((1, 2))
        torch.testing.assert_close((drawn.sum(1) * centres).sum(1) / area, x, rtol=0, atol=0.05)
        torch.testing.assert_close((drawn.sum(2) * centres).sum(1) / area, y, rtol=0, atol=0.05)

    @pytest.mark.parametrize("shape", POLYGONS)
    def test_no_symmetry_folds_the_rotations(self, shape: str) -> None:
        """Masks differ the more, the further their rotations lie apart: each rotation has a mask of its own."""
        angles = torch.arange(ROTATION[0], ROTATION[1] + 1, 5.0)
        drawn = masks(shape, len(angles), rotation=angles).flatten(1)
        distance = torch.cdist(drawn, drawn)
        apart = (angles[:, None] - angles).abs()
        assert (distance[apart > 0] > 1).all()
        near, far = distance[apart == 5].max(), distance[apart >= 20].min()
        assert near < far

    def test_rotation_turns_clockwise_on_the_image(self) -> None:
        """The triangle's tip points up; turned by 20 degrees it points to the right."""
        (mask,) = masks("triangle", 1, rotation=20.0, radius=9.0)
        tip = mask[7:9].sum(0)
        assert (tip * (torch.arange(IMAGE_SIZE) + 0.5)).sum() / tip.sum() > 18

    def test_shapes_differ(self) -> None:
        for first, second in itertools.combinations(SHAPES, 2):
            assert (masks(first, 1, radius=5.0) - masks(second, 1, radius=5.0)).abs().sum() > 5, (first, second)

    def test_further_axes_are_kept(self) -> None:
        x = torch.tensor([[12.0, 14.0, 16.0], [18.0, 17.0, 15.0]])
        rest = {name: torch.full((2, 3), value) for name, value in {"y": 16.0, "radius": 5.0, "rotation": 9.0}.items()}
        drawn = coverage("star", x=x, **rest)
        assert drawn.shape == (2, 3, IMAGE_SIZE, IMAGE_SIZE)
        torch.testing.assert_close(drawn[1, 2], masks("star", 1, x=15.0, radius=5.0, rotation=9.0)[0])


class TestPositions:
    @pytest.mark.parametrize("shape", SHAPES)
    def test_the_object_stays_inside_the_margin_at_the_ends_of_its_range(self, shape: str) -> None:
        angles = torch.arange(ROTATION[0], ROTATION[1] + 1, 2.0) * (shape in POLYGONS)
        corners = itertools.product((0, 1), repeat=2)
        for corner, radius in itertools.product(corners, (*RADIUS["small"], *RADIUS["large"])):
            ends = position_range(torch.tensor([SHAPES.index(shape)]), torch.tensor([radius]))
            x, y = (float(ends[end]) for end in corner)
            drawn = masks(shape, len(angles), x=x, y=y, radius=radius, rotation=angles)
            drawn[:, 1:-1, 1:-1] = 0
            assert drawn.max() < 1e-5

    def test_the_range_is_as_wide_as_the_margin_allows(self) -> None:
        low, high = position_range(torch.tensor([SHAPES.index("circle")]), torch.tensor([8.2]))
        (mask,) = masks("circle", 1, x=float(low), radius=8.2)
        assert mask[:, 1].max() > 0.4
        assert float(low) == pytest.approx(0.93 * 8.2 + MARGIN)
        assert float(low + high) == pytest.approx(IMAGE_SIZE)

    @pytest.mark.parametrize("shape", POLYGONS)
    def test_extent_is_the_furthest_corner(self, shape: str) -> None:
        assert EXTENT[shape] == pytest.approx(max(math.dist((0, 0), corner) for corner in POLYGONS[shape]))

    def test_every_size_has_room_to_move(self) -> None:
        for shape in range(len(SHAPES)):
            low, high = position_range(torch.tensor([shape]), torch.tensor([RADIUS["large"][1]]))
            assert high - low > 3


class TestAttributes:
    def test_hues_keep_gaps(self) -> None:
        assert list(HUES) == list(COLOURS)
        for one, other in itertools.combinations(HUES.values(), 2):
            apart = abs((one - other + 180) % 360 - 180)
            assert apart - (HUE_JITTER[1] - HUE_JITTER[0]) >= 10

    def test_sizes_keep_a_gap(self) -> None:
        assert list(RADIUS) == list(SIZES)
        assert RADIUS["small"][0] < RADIUS["small"][1] < RADIUS["large"][0] - 1.5 < RADIUS["large"][1]

    def test_backgrounds_keep_gaps(self) -> None:
        assert list(BACKGROUND_RGB) == list(BACKGROUNDS)
        for one, other in itertools.combinations(BACKGROUND_RGB.values(), 2):
            assert math.dist(one, other) > 0.2

    def test_every_colour_stands_out_from_every_background(self) -> None:
        steps = [torch.linspace(*ends, 5) for ends in (HUE_JITTER, VIVIDNESS, SHADE)]
        jitter, vividness, shade = torch.cartesian_prod(*steps).unbind(1)
        for hue, background in itertools.product(HUES.values(), BACKGROUND_RGB.values()):
            contrast = hsv_to_rgb(hue + jitter, vividness, shade) - torch.tensor(background)
            assert contrast.square().sum(1).sqrt().min() > 0.15

    def test_what_is_drawn_is_what_was_asked_for(self, scenes: Scenes) -> None:
        assert [description.prompt for description in scenes.descriptions()] == ALL_PROMPTS

    def test_ranges(self, scenes: Scenes) -> None:
        low, high = position_range(scenes.shape, scenes.radius)
        limits = torch.tensor([RADIUS[name] for name in SIZES])[scenes.size]
        ends: dict[str, tuple[Tensor | float, Tensor | float]] = {
            "x": (low, high),
            "y": (low, high),
            "radius": (limits[:, 0], limits[:, 1]),
            "rotation": ROTATION,
            "hue_jitter": HUE_JITTER,
            "shade": SHADE,
            "vividness": VIVIDNESS,
        }
        named = {"shape", "colour", "size", "background"}
        assert named | ends.keys() == {field.name for field in fields(Scenes)}
        for name, (least, most) in ends.items():
            values = getattr(scenes, name)
            assert ((values >= least) & (values <= most)).all(), name

    def test_free_attributes_are_uniform_and_independent(self) -> None:
        scenes = some_scenes(ALL_PROMPTS * 8, seed=1)
        attributes = torch.cat([free_attributes(scenes), scaled(scenes.vividness, VIVIDNESS)[:, None]], 1)
        turning = ~torch.isnan(attributes).any(1)
        columns = attributes[turning].mT
        quantiles = torch.linspace(0.1, 0.9, 9)
        for values in columns:
            torch.testing.assert_close(values.quantile(quantiles), quantiles, rtol=0, atol=0.04)
        correlation = torch.corrcoef(columns) - torch.eye(6)
        assert correlation.abs().max() < 4 / math.sqrt(columns.shape[1])

    def test_other_sizes_can_be_drawn(self) -> None:
        """With the same draws for everything else."""
        ranges = {"small": (3.0, 3.5), "large": (5.0, 6.0)}
        scenes = sample_scenes(ALL_PROMPTS, generator=seeded(), radius=ranges)
        limits = torch.tensor([ranges[name] for name in SIZES])[scenes.size]
        assert ((scenes.radius >= limits[:, 0]) & (scenes.radius <= limits[:, 1])).all()
        usual = some_scenes()
        for name in ("rotation", "hue_jitter", "shade", "vividness"):
            assert torch.equal(getattr(scenes, name), getattr(usual, name))

    def test_round_shapes_are_not_turned(self, scenes: Scenes) -> None:
        round_ones = torch.tensor([name in CIRCLES for name in SHAPES])[scenes.shape]
        assert (scenes.rotation[round_ones] == 0).all()
        assert (scenes.rotation[~round_ones] != 0).all()

    def test_a_prompt_of_another_world_is_refused(self) -> None:
        with pytest.raises(DataError, match="is not a sentence of the embedded world"):
            sample_scenes(["a cat"], generator=seeded())


class TestColours:
    def test_hsv_is_that_of_the_standard_library(self) -> None:
        hue, saturation, value = torch.rand(3, 50, generator=seeded())
        wanted = [
            colorsys.hsv_to_rgb(*row) for row in zip(hue.tolist(), saturation.tolist(), value.tolist(), strict=True)
        ]
        for turns in (-360.0, 0.0, 360.0):
            converted = hsv_to_rgb(hue * 360 + turns, saturation, value)
            torch.testing.assert_close(converted, torch.tensor(wanted), rtol=0, atol=1e-5)

    def test_vividness_is_saturation_and_shade_is_value(self, scenes: Scenes) -> None:
        rgb = object_rgb(scenes)
        torch.testing.assert_close(rgb.amax(1), scenes.shade)
        torch.testing.assert_close(1 - rgb.amin(1) / rgb.amax(1), scenes.vividness)

    def test_another_quality_changes_nothing_else(self, scenes: Scenes) -> None:
        paler = replace(scenes, vividness=torch.full((480,), 0.5))
        assert (paler.vividness == 0.5).all()
        for field in fields(Scenes):
            if field.name != "vividness":
                assert torch.equal(getattr(paler, field.name), getattr(scenes, field.name))


class TestSeeds:
    def test_a_generator_gives_the_same_images_again(self, images: Tensor) -> None:
        assert torch.equal(some_drawings(ALL_PROMPTS), images)
        assert not torch.equal(some_drawings(ALL_PROMPTS, seed=1), images)

    def test_global_randomness_is_left_alone(self) -> None:
        torch.manual_seed(3)
        wanted = torch.rand(2)
        torch.manual_seed(3)
        draw(some_scenes(ALL_PROMPTS[:4]))
        assert torch.equal(torch.rand(2), wanted)

    def test_the_shipped_weights_were_trained_with_these_drawings(self) -> None:
        """The order in which attributes are drawn: another one would change every seeded result."""
        scene = some_scenes(["a large red star on a gray background"], seed=0)
        expected = {
            "radius": 9.2948,
            "x": 17.9636,
            "y": 12.9873,
            "rotation": -14.7188,
            "hue_jitter": -3.0812,
            "shade": 0.8902,
            "vividness": 0.6705,
        }
        assert {name: getattr(scene, name).item() for name in expected} == pytest.approx(expected, abs=1e-4)
