from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seedpo.errors import ConfigError, DataError, RunFolderError
from seedpo.evaluation.sample import sample_images
from seedpo.models.policy import build_policy
from seedpo.settings import build_config
from seedpo.training.run_folder import create_run_folder
from seedpo.training.settings import RunConfig
from tests.models.tiny import move

RED = "a large red circle on a gray background"
BLUE = "a small blue star on a white background"


def sample(out: Path, *prompt: str, **changes: Any) -> list[Path]:
    settings: dict[str, Any] = {
        "prompts": None,
        "run": None,
        "model": "scenes",
        "images_per_prompt": 2,
        "num_inference_steps": 2,
        "guidance_scale": 2.0,
        "seed": 3,
    }
    return sample_images(prompt=prompt, out=out, **(settings | changes))


def pixels(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images of each of two prompts, drawn by the base model."""
    out = tmp_path_factory.mktemp("base") / "images"
    sample(out, RED, BLUE)
    return out


def run_folder(path: Path, *, moved: bool) -> Path:
    """A finished run whose adapter is that of the start, or has moved."""
    config = build_config(RunConfig, {"model": "scenes", "adapter": "lora"})
    folder = create_run_folder(path, config)
    policy = build_policy(config)
    if moved:
        move(policy, scale=0.2)
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
        sample(tmp_path, RED, images_per_prompt=1)
        assert abs(pixels(tmp_path / "000-00.png") - pixels(base / "000-00.png")).max() <= 1

    def test_images_of_a_prompt_differ_and_seeds_differ(self, base: Path, tmp_path: Path) -> None:
        sample(tmp_path, RED, seed=4, images_per_prompt=1)
        assert abs(pixels(base / "000-00.png") - pixels(base / "000-01.png")).max() > 5
        assert abs(pixels(base / "000-00.png") - pixels(tmp_path / "000-00.png")).max() > 5


class TestPrompts:
    def test_a_file_is_added_to_what_is_written_out(self, tmp_path: Path) -> None:
        (tmp_path / "prompts.txt").write_text(f"{BLUE}\n", encoding="utf-8")
        sample(tmp_path / "out", RED, prompts=str(tmp_path / "prompts.txt"), images_per_prompt=1, num_inference_steps=1)
        index = json.loads((tmp_path / "out" / "index.json").read_text(encoding="utf-8"))
        assert [entry["prompt"] for entry in index] == [RED, BLUE]

    def test_nothing_to_draw(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="there is nothing to draw; give --prompt"):
            sample(tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_unknown_words_are_warned_of(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING):
            sample(tmp_path, "a large crimson owl", RED, images_per_prompt=1, num_inference_steps=1)
        (warning,) = [record.getMessage() for record in caplog.records if record.name.startswith("seedpo")]
        assert "has never seen 'crimson', 'owl'" in warning


class TestRuns:
    def test_a_run_that_has_not_moved_draws_as_the_base_model(self, base: Path, tmp_path: Path) -> None:
        sample(tmp_path / "out", RED, run=run_folder(tmp_path / "run", moved=False), images_per_prompt=1)
        assert abs(pixels(tmp_path / "out" / "000-00.png") - pixels(base / "000-00.png")).max() <= 1

    def test_trained_weights_are_used(self, base: Path, tmp_path: Path) -> None:
        sample(tmp_path / "out", RED, run=run_folder(tmp_path / "run", moved=True), images_per_prompt=1)
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
