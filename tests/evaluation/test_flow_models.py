"""`evaluate` and `sample` with flow-matching pipelines, and with LoRAs that another trainer wrote."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from PIL import Image

from seedpo.errors import ConfigError, DataError
from seedpo.evaluation.controls import SamplingControl, one_at_a_time
from seedpo.evaluation.drawing import draw_samples
from seedpo.evaluation.evaluate import Measures, evaluate
from seedpo.evaluation.sample import SampleRequest, sample_grid, sample_images, usual_sampling
from seedpo.evaluation.targets import ModelOptions, load_target, parse_target
from seedpo.models.denoiser import PipelineDenoiser
from seedpo.models.families import family_of
from tests.evaluation.small_evaluations import drawing
from tests.models.flow_pipelines import flow_pipeline
from tests.models.tiny import PROMPTS, seeded, tiny_pipeline

RED, LONG = PROMPTS[0], " ".join(["red"] * 40)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pipelines, and a LoRA of `sd3` in a folder of peft whose product is large."""
    root = tmp_path_factory.mktemp("flow")
    for kind in ("sd3", "sd3-bare"):
        flow_pipeline(kind).save_pretrained(root / kind)
    tiny_pipeline().save_pretrained(root / "unet")
    network = get_peft_model(
        flow_pipeline("sd3").transformer, LoraConfig(r=2, lora_alpha=4.0, target_modules=["to_q", "to_out.0"])
    )
    for row, (name, weight) in enumerate(network.named_parameters()):
        if "lora_" in name:
            weight.data = torch.randn(weight.shape, generator=seeded(row)) / 2
    network.save_pretrained(root / "lora")
    merged = flow_pipeline("sd3")
    merged.transformer = network.merge_and_unload()
    merged.save_pretrained(root / "merged")
    return {path.name: path for path in root.iterdir()}


def request(folders: dict[str, Path], *prompts: str, kind: str = "sd3", **changes: Any) -> SampleRequest:
    settings: dict[str, Any] = {"images": 1, "num_inference_steps": 2, "guidance_scale": 2.0, "seed": 3}
    return SampleRequest(prompt=prompts or (RED,), model=str(folders[kind]), **settings | changes)


def pixels(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


@pytest.fixture(scope="module")
def out(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of the base, the LoRA and the weights that it was merged into."""
    out = tmp_path_factory.mktemp("evaluation") / "out"
    prompts = out.with_name("prompts.txt")
    prompts.write_text("\n".join(PROMPTS[:2]), encoding="utf-8")
    targets = [f"base={folders['sd3']}", f"theirs={folders['lora']}", f"merged={folders['merged']}"]
    evaluate(
        targets,
        out,
        prompts=str(prompts),
        drawing=drawing(),
        measures=Measures(metrics=("pairwise_diversity",)),
        options=ModelOptions(model=str(folders["sd3"]), max_sequence_length=32),
    )
    return out


class TestEvaluate:
    def test_a_lora_draws_as_its_product_in_the_weights(self, out: Path) -> None:
        files = sorted(path.name for path in (out / "images" / "theirs").iterdir())
        assert len(files) == 4
        for name in files:
            theirs, merged, base = (pixels(out / "images" / label / name) for label in ("theirs", "merged", "base"))
            assert abs(theirs - merged).max() <= 1
            assert abs(theirs - base).max() > 5

    def test_what_images_depend_on_is_recorded(self, out: Path) -> None:
        content = yaml.safe_load((out / "evaluation.yaml").read_text(encoding="utf-8"))
        assert {label: record["kind"] for label, record in content["targets"].items()} == {
            "base": "pipeline",
            "theirs": "lora",
            "merged": "pipeline",
        }
        for record in content["targets"].values():
            assert record["max_sequence_length"] == 32
            assert "embedded_guidance" not in record

    def test_images_are_those_of_the_pipeline_itself(self, folders: dict[str, Path]) -> None:
        target = parse_target(str(folders["sd3"]), ModelOptions())
        ours = draw_samples(load_target(target), [RED], drawing(images=1)).images[0]
        pipeline = flow_pipeline("sd3")
        denoiser = PipelineDenoiser(pipeline)
        start = torch.randn(denoiser.latent_shape, generator=torch.Generator().manual_seed(3 * 1_000_003 * 1_009))
        drawn = pipeline(
            RED, negative_prompt="", num_inference_steps=2, guidance_scale=2.0, latents=start[None], output_type="pt"
        ).images
        torch.testing.assert_close(ours, drawn, atol=2e-5, rtol=0.0)

    def test_prompts_that_are_cut_are_named(
        self, folders: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING, logger="seedpo"):
            sample_images(request(folders, RED, LONG, max_sequence_length=16), tmp_path)
        (told,) = [record for record in caplog.records if record.name.startswith("seedpo")]
        assert told.args == (LONG, " ".join(["red"] * 25))  # 15 words and the end


class TestSample:
    def test_strengths_of_a_lora(self, folders: dict[str, Path], tmp_path: Path) -> None:
        controls = one_at_a_time(strengths=(0.0, 1.0))
        cells = sample_grid(request(folders, lora=str(folders["lora"])), tmp_path / "grid", controls=controls)
        sample_images(request(folders), tmp_path / "base")
        sample_images(request(folders, kind="merged"), tmp_path / "merged")
        drawn = [pixels(tmp_path / "grid" / cell.folder / "000-00.png") for cell in cells]
        for image, whole in zip(drawn, ("base", "merged"), strict=True):
            assert abs(image - pixels(tmp_path / whole / "000-00.png")).max() <= 1
        assert abs(drawn[0] - drawn[1]).max() > 5

    def test_usual_steps_and_guidance_are_those_of_the_pipeline(self, folders: dict[str, Path]) -> None:
        usual = usual_sampling(
            request(folders, num_inference_steps=None, guidance_scale=None), PipelineDenoiser(flow_pipeline("sd3"))
        )
        assert (usual.num_inference_steps, usual.guidance_scale) == (28, 7.0)

    def test_the_index_is_that_of_any_model(self, folders: dict[str, Path], tmp_path: Path) -> None:
        """What `seedpo score` and the study read."""
        sample_images(request(folders, kind="sd3-bare"), tmp_path)
        assert json.loads((tmp_path / "index.json").read_text()) == [{"file": "000-00.png", "prompt": RED}]


class TestRefused:
    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"sampler": "ddim"}, "unknown sampler 'ddim'.*euler"),
            ({"size": (18, 16)}, "multiple of 4"),
            ({"embedded_guidance": 3.5}, "embedded_guidance = 3.5.*guidance_scale"),
            ({"kind": "unet", "max_sequence_length": 64}, "max_sequence_length = 64.*leave it out"),
            ({"kind": "unet", "sampler": "eulr"}, "did you mean 'euler'"),
        ],
    )
    def test_options(self, folders: dict[str, Path], tmp_path: Path, changes: dict[str, Any], said: str) -> None:
        with pytest.raises(ConfigError, match=said):
            sample_images(request(folders, **changes), tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_a_model_that_cannot_be_guided(
        self, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reason = "its guidance is an input"

        def unguided(pipeline: Any) -> Any:
            return replace(family_of(pipeline), unguided=lambda pipeline: reason)

        monkeypatch.setattr("seedpo.models.denoiser.family_of", unguided)
        with pytest.raises(ConfigError, match=f"--guidance = 2 must be 1: {reason}"):
            sample_images(request(folders), tmp_path / "out")
        with pytest.raises(ConfigError, match=f"{reason}; leave it out"):
            sample_images(request(folders, guidance_scale=None, negative_prompt="blurry"), tmp_path / "out")
        assert sample_images(request(folders, guidance_scale=None), tmp_path / "out")

    def test_a_lora_on_another_family(self, folders: dict[str, Path], tmp_path: Path) -> None:
        with pytest.raises(DataError, match="trained on"):
            sample_images(request(folders, kind="unet", lora=str(folders["lora"])), tmp_path)

    def test_a_lora_beside_a_run(self, folders: dict[str, Path], tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="--lora"):
            sample_images(request(folders, lora=str(folders["lora"]), run=tmp_path), tmp_path)

    def test_strength_without_trained_weights(self, folders: dict[str, Path], tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"--strength.*--run or --lora"):
            sample_images(request(folders), tmp_path, control=SamplingControl(strength=0.5))

    def test_folders_of_several_adapters(self, folders: dict[str, Path], tmp_path: Path) -> None:
        for name in ("learner", "ref"):
            (tmp_path / name).mkdir()
            for file in folders["lora"].iterdir():
                (tmp_path / name / file.name).write_bytes(file.read_bytes())
        with pytest.raises(DataError, match="learner, ref"):
            parse_target(str(tmp_path), ModelOptions(model="scenes"))
        (tmp_path / "ref" / "adapter_model.safetensors").unlink()
        weights = parse_target(str(tmp_path), ModelOptions(model="scenes")).weights
        assert weights == tmp_path / "learner" / "adapter_model.safetensors"
