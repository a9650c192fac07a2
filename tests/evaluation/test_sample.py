from __future__ import annotations

import csv
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from seedpo.errors import ConfigError, DataError, RunFolderError
from seedpo.evaluation.control_grid import GAP, LINE, MARGIN
from seedpo.evaluation.controls import SamplingControl, one_at_a_time
from seedpo.evaluation.drawing import initial_latent
from seedpo.evaluation.sample import SampleRequest, sample_grid, sample_images, usual_sampling
from seedpo.models.denoiser import load_denoiser
from seedpo.models.loading import load_pipeline
from seedpo.models.policy import build_policy
from seedpo.models.samplers import DDPM_SAMPLERS
from seedpo.models.settings import ModelSettings
from seedpo.models.trained import load_trained
from seedpo.run_folders import RunFolder
from seedpo.settings import build_config
from seedpo.training.run_folder import create_run_folder
from seedpo.training.settings import RunConfig
from tests.models.published import KINDS, pipeline_of
from tests.models.tiny import move

RED = "a large red circle on a gray background"
BLUE = "a small blue star on a white background"


def request(*prompt: str, **changes: Any) -> SampleRequest:
    settings: dict[str, Any] = {"images": 2, "num_inference_steps": 2, "guidance_scale": 2.0, "seed": 3}
    return SampleRequest(prompt=prompt, **(settings | changes))


def sample(out: Path, *prompt: str, step: int | None = None, strength: float = 1.0, **changes: Any) -> list[Path]:
    """Images of a request, at a strength or under another control."""
    control = changes.pop("control", None) or SamplingControl(strength=strength)
    return sample_images(request(*prompt, **changes), out, step=step, control=control)


def pixels(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images of each of two prompts, drawn by the base model."""
    out = tmp_path_factory.mktemp("base") / "images"
    sample(out, RED, BLUE)
    return out


def run_folder(path: Path, *, moved: bool, adapter: str = "lora", **changes: Any) -> Path:
    """A finished run whose weights are those of the start, or have moved."""
    config = build_config(RunConfig, {"model": "scenes", "adapter": adapter} | changes)
    folder = create_run_folder(path, config)
    policy = build_policy(config)
    if moved:
        move(policy, scale=0.2 if adapter == "lora" else 0.02)
    policy.save(folder.path / config.weights_folder)
    return path


class TestFiles:
    def test_one_file_for_each_image(self, base: Path) -> None:
        names = ["000-00.png", "000-01.png", "001-00.png", "001-01.png", "index.json", "sheet.png"]
        assert sorted(path.name for path in base.iterdir()) == names
        for name in names[:4]:
            assert pixels(base / name).shape == (32, 32, 3)

    def test_the_index_names_the_prompt_of_each(self, base: Path) -> None:
        index = json.loads((base / "index.json").read_text(encoding="utf-8"))
        assert index == [
            {"file": "000-00.png", "prompt": RED},
            {"file": "000-01.png", "prompt": RED},
            {"file": "001-00.png", "prompt": BLUE},
            {"file": "001-01.png", "prompt": BLUE},
        ]

    def test_the_sheet_is_enlarged_by_a_whole_factor(self, base: Path) -> None:
        sheet = pixels(base / "sheet.png")
        assert sheet.shape == (2 * 256, 2 * 256, 3)
        for row in range(2):
            for column in range(2):
                tile = sheet[row * 256 : (row + 1) * 256 : 8, column * 256 : (column + 1) * 256 : 8]
                assert (tile == pixels(base / f"{row:03d}-{column:02d}.png")).all()

    def test_the_files_are_returned_in_order(self, tmp_path: Path) -> None:
        files = sample(tmp_path / "deep" / "down", RED)
        assert files == [tmp_path / "deep" / "down" / name for name in ("000-00.png", "000-01.png")]
        assert all(path.is_file() for path in files)


class TestSeeds:
    def test_an_image_does_not_depend_on_the_others(self, base: Path, tmp_path: Path) -> None:
        sample(tmp_path, RED, images=1)
        assert abs(pixels(tmp_path / "000-00.png") - pixels(base / "000-00.png")).max() <= 1

    def test_images_of_a_prompt_differ_and_seeds_differ(self, base: Path, tmp_path: Path) -> None:
        sample(tmp_path, RED, seed=4, images=1)
        assert abs(pixels(base / "000-00.png") - pixels(base / "000-01.png")).max() > 5
        assert abs(pixels(base / "000-00.png") - pixels(tmp_path / "000-00.png")).max() > 5


class TestPrompts:
    def test_a_file_is_added_to_what_is_written_out(self, tmp_path: Path) -> None:
        (tmp_path / "prompts.txt").write_text(f"{BLUE}\n", encoding="utf-8")
        sample(tmp_path / "out", RED, prompts=str(tmp_path / "prompts.txt"), images=1, num_inference_steps=1)
        index = json.loads((tmp_path / "out" / "index.json").read_text(encoding="utf-8"))
        assert [entry["prompt"] for entry in index] == [RED, BLUE]

    def test_nothing_to_draw(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="there is nothing to draw; give --prompt"):
            sample(tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_unknown_words_are_warned_of(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING):
            sample(tmp_path, "a large crimson owl", RED, images=1, num_inference_steps=1)
        (warning,) = [record.getMessage() for record in caplog.records if record.name.startswith("seedpo")]
        assert "has never seen 'crimson', 'owl'" in warning


class TestRuns:
    def test_a_run_that_has_not_moved_draws_as_the_base_model(self, base: Path, tmp_path: Path) -> None:
        sample(tmp_path / "out", RED, run=run_folder(tmp_path / "run", moved=False), images=1)
        assert abs(pixels(tmp_path / "out" / "000-00.png") - pixels(base / "000-00.png")).max() <= 1

    def test_trained_weights_are_used(self, base: Path, tmp_path: Path) -> None:
        sample(tmp_path / "out", RED, run=run_folder(tmp_path / "run", moved=True), images=1)
        assert abs(pixels(tmp_path / "out" / "000-00.png") - pixels(base / "000-00.png")).max() > 5

    def test_a_folder_that_is_no_run(self, tmp_path: Path) -> None:
        with pytest.raises(RunFolderError, match=r"config\.yaml"):
            sample(tmp_path / "out", RED, run=tmp_path)

    def test_a_run_without_weights(self, tmp_path: Path) -> None:
        create_run_folder(tmp_path / "run", build_config(RunConfig, {"model": "scenes"}))
        with pytest.raises(DataError, match=r"pytorch_lora_weights\.safetensors"):
            sample(tmp_path / "out", RED, run=tmp_path / "run")

    def test_an_unknown_model(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="unknown model 'scnes'; did you mean 'scenes'"):
            sample(tmp_path / "out", RED, model="scnes")


class TestChoices:
    def test_a_negative_prompt_guides_away(self, base: Path, tmp_path: Path) -> None:
        sample(tmp_path, RED, negative_prompt=BLUE, images=1)
        assert abs(pixels(tmp_path / "000-00.png") - pixels(base / "000-00.png")).max() > 5

    def test_a_negative_prompt_needs_guidance(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="guidance 1 uses no negative prompt"):
            sample(tmp_path / "out", RED, negative_prompt=BLUE, guidance_scale=1.0)
        assert not (tmp_path / "out").exists()

    def test_height_and_width(self, tmp_path: Path) -> None:
        sample(tmp_path, RED, size=(48, 32), images=1)
        assert pixels(tmp_path / "000-00.png").shape == (48, 32, 3)

    def test_a_size_between_latents(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="size 33x32: height and width must be multiples of"):
            sample(tmp_path / "out", RED, size=(33, 32))

    @pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
    def test_another_sampler(self, base: Path, tmp_path: Path) -> None:
        sample(tmp_path / "euler", RED, sampler="euler", images=1)
        sample(tmp_path / "ddim", RED, sampler="ddim", images=1)
        assert abs(pixels(tmp_path / "euler" / "000-00.png") - pixels(base / "000-00.png")).max() > 5
        assert abs(pixels(tmp_path / "ddim" / "000-00.png") - pixels(base / "000-00.png")).max() <= 1

    def test_defaults_are_those_of_the_evaluations(self, tmp_path: Path) -> None:
        evaluation = {"num_inference_steps": 7, "guidance_scale": 4.5}
        run = run_folder(tmp_path / "run", moved=False, evaluation=evaluation)
        denoiser = load_denoiser(build_config(ModelSettings, {"model": "scenes"}))
        found = usual_sampling(SampleRequest(run=run), denoiser)
        assert (found.num_inference_steps, found.guidance_scale) == (7, 4.5)
        found = usual_sampling(SampleRequest(run=run, guidance_scale=1.0), denoiser)
        assert (found.num_inference_steps, found.guidance_scale) == (7, 1.0)

    def test_defaults_of_a_pipeline_are_those_of_diffusers(self) -> None:
        denoiser = load_denoiser(build_config(ModelSettings, {"model": "scenes"}))
        found = usual_sampling(SampleRequest(model="some/folder"), denoiser)
        assert (found.num_inference_steps, found.guidance_scale) == (50, 7.5)


class TestStrength:
    @pytest.mark.parametrize("adapter", ["lora", "full"])
    def test_from_the_base_model_to_the_trained_one(self, base: Path, tmp_path: Path, adapter: str) -> None:
        run = run_folder(tmp_path / "run", moved=True, adapter=adapter)
        for name, strength in (("base", 0.0), ("half", 0.5), ("whole", 1.0)):
            sample(tmp_path / name, RED, run=run, images=1, strength=strength)
        sample(tmp_path / "trained", RED, run=run, images=1)
        start, half, whole, trained = (
            pixels(folder / "000-00.png")
            for folder in (base, tmp_path / "half", tmp_path / "whole", tmp_path / "trained")
        )
        assert abs(pixels(tmp_path / "base" / "000-00.png") - start).max() <= 1
        assert abs(whole - trained).max() <= 1
        assert abs(half - start).max() > 5
        assert abs(half - whole).max() > 5

    def test_of_a_lora_scales_its_product(self, tmp_path: Path) -> None:
        folder = run_folder(tmp_path / "run", moved=True, lora_rank=2)
        settings = RunFolder.open(folder).settings(ModelSettings)
        weights = folder / settings.weights_folder
        once = load_trained(settings, weights=weights)
        layers = [name for name, _ in once.network.named_parameters() if name.endswith("lora_B.default.weight")]
        scaled = load_denoiser(settings, weights=weights)
        with torch.no_grad():
            for name in layers:
                scaled.network.get_parameter(name).mul_(0.25)
        inputs = torch.randn(1, *once.latent_shape), torch.tensor([500]), once.encode_prompts([RED])
        with torch.no_grad(), once.at_strength(0.25):
            torch.testing.assert_close(once.predict(*inputs), scaled.predict(*inputs))

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_that_is_no_number(self, tmp_path: Path, value: float) -> None:
        with pytest.raises(ConfigError, match="strength"):
            sample(tmp_path / "out", RED, run=run_folder(tmp_path / "run", moved=False), strength=value)

    def test_without_a_run(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"give --run or --lora"):
            sample(tmp_path / "out", RED, strength=0.5)
        with pytest.raises(ConfigError, match="give --run"):
            sample_grid(request(RED), tmp_path / "out")


class TestGrid:
    def test_cells_are_single_sets(self, run: Path, tmp_path: Path) -> None:
        cells = sample_grid(
            request(RED, run=run, images=1),
            tmp_path / "grid",
            steps=(1, 2),
            controls=one_at_a_time(strengths=(0.0, 1.0)),
        )
        assert [(cell.step, cell.control.strength) for cell in cells] == [(1, 0.0), (1, 1.0), (2, 0.0), (2, 1.0)]
        for cell in cells:
            sample(tmp_path / "single", RED, run=run, images=1, step=cell.step, control=cell.control)
            drawn = pixels(tmp_path / "grid" / cell.folder / "000-00.png")
            assert abs(drawn - pixels(tmp_path / "single" / "000-00.png")).max() <= 1
        with (tmp_path / "grid" / "grid.csv").open(encoding="utf-8") as file:
            table = list(csv.DictReader(file))
        assert [(row["column"], row["row"], row["step"], row["strength"]) for row in table] == [
            ("0", "0", "1", "0.0"),
            ("0", "1", "1", "1.0"),
            ("1", "0", "2", "0.0"),
            ("1", "1", "2", "1.0"),
        ]
        assert [row["folder"] for row in table] == [cell.folder for cell in cells]

    def test_the_picture_shows_each_cell(self, run: Path, tmp_path: Path) -> None:
        cells = sample_grid(request(RED, BLUE, run=run, images=2), tmp_path, steps=(1, 2))
        picture, (width, height) = pixels(tmp_path / "grid.png"), (2 * 96, 96)
        for number, prompt in enumerate((RED, BLUE)):
            block = LINE + GAP + number * (LINE + 3 * (height + GAP) + GAP) + LINE
            for cell in cells:
                top = block + (0.0, 0.5, 1.0).index(cell.control.strength) * (height + GAP)
                left = MARGIN + (1, 2).index(cell.step or 0) * (width + GAP)
                shown = picture[top : top + height : 3, left : left + width : 3]
                single = pixels(tmp_path / cell.folder / f"{number:03d}-01.png")
                assert (shown[:, 32:] == single).all(), prompt

    def test_all_checkpoints_and_three_strengths_by_default(self, run: Path, tmp_path: Path) -> None:
        cells = sample_grid(request(RED, run=run, images=1, num_inference_steps=1), tmp_path)
        assert {cell.step for cell in cells} == set(RunFolder.open(run).checkpoint_steps())
        assert {cell.control.strength for cell in cells} == {0.0, 0.5, 1.0}

    def test_a_step_that_is_not_there(self, run: Path, tmp_path: Path) -> None:
        with pytest.raises(RunFolderError, match="no checkpoint of step 7; there are checkpoints of: 1, 2"):
            sample_grid(request(RED, run=run), tmp_path / "out", steps=(1, 7))
        assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("negative", ["", BLUE])
def test_images_of_published_pipelines_are_those_of_diffusers(kind: str, negative: str, tmp_path: Path) -> None:
    """Another size, another sampler and a negative prompt, on a saved pipeline with its own scheduler."""
    pipeline_of(kind).save_pretrained(tmp_path / "model")
    pipeline = load_pipeline(tmp_path / "model")
    size, sampler = (24, 16), "dpm++"
    sample(tmp_path, RED, model=str(tmp_path / "model"), size=size, sampler=sampler, negative_prompt=negative, images=1)
    pipeline.scheduler = DDPM_SAMPLERS[sampler].of(pipeline)
    (drawn,) = pipeline(
        RED,
        negative_prompt=negative or None,
        height=size[0],
        width=size[1],
        num_inference_steps=2,
        guidance_scale=2.0,
        latents=initial_latent(0, 0, (4, size[0] // 2, size[1] // 2), seed=3)[None],
    ).images
    assert abs(pixels(tmp_path / "000-00.png") - np.asarray(drawn).astype(int)).max() <= 1
