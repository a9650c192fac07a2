"""The weights that ship with the package: what they are, that anyone can load them, and how good they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from seedpo.evaluation.drawing import draw_samples
from seedpo.evaluation.settings import EvaluationConfig
from seedpo.metrics.records import Samples
from seedpo.models.catalogue import MODELS, NamedModel
from seedpo.models.policy import PipelinePolicy, build_policy
from seedpo.models.settings import ModelSettings
from seedpo.rewards.named import build_reward
from seedpo.rewards.step_aware_clip import StepAwareScorer, load_scorer
from seedpo.scenes.assets import ASSETS, FLOW_PIPELINE, PIPELINE, PLAIN_SCORER, SCORER
from seedpo.scenes.drawing import IMAGE_SIZE
from seedpo.scenes.oracle import Readings, read_images
from seedpo.scenes.prompts import EVALUATION_PROMPTS
from seedpo.settings import build_config
from seedpo.training.configuration import resolve_reward_config
from seedpo.training.reward_run import measure_reward
from tests.scenes.drawings import some_drawings
from tools.scenes.card import plain_figures

FILES = sorted(path for path in ASSETS.rglob("*") if path.is_file())

WITHOUT_SEEDPO = """
import sys
import numpy as np

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "seedpo":
            raise ImportError("seedpo is not to be imported")

sys.meta_path.insert(0, Refuse())
try:
    import seedpo
except ImportError:
    pass
else:
    raise SystemExit("seedpo could be imported")
import diffusers
folder, name, network, *absent = sys.argv[1:]
pipeline = getattr(diffusers, name).from_pretrained(
    folder, local_files_only=True, use_safetensors=True, **dict.fromkeys(absent)
)
pipeline.set_progress_bar_config(disable=True)
image = pipeline("a large red circle on a gray background", num_inference_steps=2, output_type="np").images
assert image.shape == (1, 32, 32, 3), image.shape
assert np.isfinite(image).all()
assert not [name for name in sys.modules if name.partition(".")[0] == "seedpo"]
print("LOADED", type(getattr(pipeline, network)).__name__)
"""


class TestFiles:
    def test_take_at_most_20_megabytes(self) -> None:
        assert sum(path.stat().st_size for path in FILES) < 20e6

    def test_weights_are_safetensors_and_the_rest_is_text(self) -> None:
        assert {path.suffix for path in FILES} <= {".safetensors", ".json", ".txt", ".md"}
        weights = [path.relative_to(ASSETS) for path in FILES if path.suffix == ".safetensors"]
        assert {str(path.parent) for path in weights} == {
            ".",
            "clip",
            "flow/text_encoder",
            "flow/text_encoder_2",
            "flow/transformer",
            "flow/vae",
            "plain",
            "pipeline/text_encoder",
            "pipeline/unet",
            "pipeline/vae",
            "scorer",
        }

    def test_nothing_unfinished_is_shipped(self) -> None:
        assert not [path for path in FILES if "unfinished" in str(path)]

    @pytest.mark.parametrize(
        "path",
        [path for path in FILES if path.suffix == ".safetensors"],
        ids=lambda path: str(path.parent.relative_to(ASSETS)),
    )
    def test_weights_are_finite(self, path: Path) -> None:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118, the file itself cannot be iterated over
                assert torch.isfinite(file.get_tensor(name)).all(), name

    @pytest.mark.parametrize(
        ("folder", "name", "parts"),
        [
            (
                PIPELINE,
                "StableDiffusionPipeline",
                {
                    "unet": "UNet2DConditionModel",
                    "vae": "AutoencoderKL",
                    "text_encoder": "CLIPTextModel",
                    "tokenizer": "CLIPTokenizer",
                    "scheduler": "DDIMScheduler",
                },
            ),
            (
                FLOW_PIPELINE,
                "StableDiffusion3Pipeline",
                {
                    "transformer": "SD3Transformer2DModel",
                    "vae": "AutoencoderKL",
                    "text_encoder": "CLIPTextModelWithProjection",
                    "text_encoder_2": "CLIPTextModelWithProjection",
                    "text_encoder_3": None,
                    "tokenizer": "CLIPTokenizer",
                    "tokenizer_2": "CLIPTokenizer",
                    "tokenizer_3": None,
                    "scheduler": "FlowMatchEulerDiscreteScheduler",
                },
            ),
        ],
    )
    def test_the_classes_are_those_of_stable_diffusion(
        self, folder: Path, name: str, parts: Mapping[str, str | None]
    ) -> None:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        assert index["_class_name"] == name
        assert {part: index[part][1] for part in parts} == parts

    def test_files_name_no_path_of_the_machine_that_made_them(self) -> None:
        for path in FILES:
            if path.suffix == ".json":
                assert '"_name_or_path"' not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize(
    ("folder", "name", "part", "network", "absent"),
    [
        (PIPELINE, "StableDiffusionPipeline", "unet", "UNet2DConditionModel", ()),
        (
            FLOW_PIPELINE,
            "StableDiffusion3Pipeline",
            "transformer",
            "SD3Transformer2DModel",
            ("text_encoder_3", "tokenizer_3"),
        ),
    ],
)
def test_plain_diffusers_loads_the_pipelines(
    folder: Path, name: str, part: str, network: str, absent: Sequence[str]
) -> None:
    """In a process in which seedpo cannot be imported."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-c", WITHOUT_SEEDPO, str(folder), name, part, *absent]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["LOADED", network]


@pytest.mark.slow
def test_the_call_of_diffusers_draws_well_by_flow_matching() -> None:
    """With the 256 zero tokens that its call appends to the text, and the row's steps and guidance."""
    figures = plain_figures(FLOW_PIPELINE, images_per_prompt=2)
    assert figures["images"] == 128
    assert figures["images_with_all_attributes_right"] > 0.9


@pytest.fixture(scope="module", params=MODELS.names())
def row(request: pytest.FixtureRequest) -> NamedModel:
    return MODELS[request.param]


@pytest.fixture(scope="module")
def policy(row: NamedModel) -> PipelinePolicy:
    return build_policy(build_config(ModelSettings, row.loading, {"model": row.name}))


@pytest.fixture(scope="module")
def scorer() -> StepAwareScorer:
    return load_scorer(SCORER)


@pytest.fixture(scope="module")
def samples(row: NamedModel, policy: PipelinePolicy) -> Samples:
    """One image of each of 16 held-out prompts."""
    config = EvaluationConfig(
        images_per_prompt=1,
        guidance_scale=row.guidance_scale,
        num_inference_steps=row.num_inference_steps,
        seed=7,
    )
    return draw_samples(policy, EVALUATION_PROMPTS[::4], config.drawing)


@pytest.fixture(scope="module")
def readings(samples: Samples) -> Readings:
    return read_images(*samples.flat())


@pytest.fixture(scope="module")
def accuracy() -> Mapping[str, float]:
    """On pairs of training prompts that neither the scorer nor a policy was trained on."""
    changes = {"start": str(SCORER), "held_out_limit": 120, "timesteps": [0, 251]}
    return measure_reward(resolve_reward_config(changes=changes), progress=False)


class TestPipeline:
    """What is asked for lies below the model card's figures by the sampling error."""

    def test_images_have_the_size_of_the_world(self, samples: Samples) -> None:
        assert samples.images.shape == (16, 1, 3, IMAGE_SIZE, IMAGE_SIZE)

    def test_most_images_show_what_their_prompt_says(self, readings: Readings) -> None:
        """At least 9 in 10; 15 of 16."""
        assert readings.correct.all(1).float().mean() > 0.9

    def test_images_are_clean(self, readings: Readings) -> None:
        assert readings.residual.median() < 0.05

    def test_vividness_is_not_all_at_one_end(self, readings: Readings) -> None:
        """There must be something to gain by preference training."""
        assert 0.2 < float(readings.vividness.mean()) < 0.8
        assert readings.vividness.std() > 0.1


def test_the_autoencoder_keeps_the_attributes(policy: PipelinePolicy) -> None:
    prompts = list(EVALUATION_PROMPTS[::4])
    drawings = some_drawings(prompts)
    decoded = policy.decode(policy.encode_images(drawings))
    assert read_images(decoded, prompts).correct.all()
    assert -10 * (decoded - drawings).square().mean().log10() > 33  # dB


def test_latents_have_unit_deviation(policy: PipelinePolicy) -> None:
    latents = policy.encode_images(some_drawings(EVALUATION_PROMPTS))
    assert float(latents.std()) == pytest.approx(1, abs=0.1)


def test_the_plain_scorer_agrees_with_the_annotator_and_knows_no_time_step() -> None:
    changes = {"start": str(PLAIN_SCORER), "model": None, "held_out_limit": 120}
    figures = measure_reward(resolve_reward_config(changes=changes), progress=False)
    assert figures["accuracy"] > 0.65
    assert not build_reward("scenes-plain").step_aware


class TestScorer:
    def test_agrees_with_the_annotator_on_clean_images(self, accuracy: Mapping[str, float]) -> None:
        """Chance is 0.5 with a standard error of 0.05."""
        assert accuracy["accuracy/t=0"] > 0.65

    def test_still_agrees_on_previews(self, accuracy: Mapping[str, float]) -> None:
        assert accuracy["accuracy/t=251"] > 0.6

    def test_prefers_the_prompt_that_fits(self, scorer: StepAwareScorer) -> None:
        prompts = list(EVALUATION_PROMPTS[:32])
        images = some_drawings(prompts)
        others = prompts[1:] + prompts[:1]
        assert (scorer(images, prompts) > scorer(images, others)).float().mean() > 0.8

    def test_knows_the_time_step(self, scorer: StepAwareScorer) -> None:
        prompts = list(EVALUATION_PROMPTS[:4])
        images = some_drawings(prompts)
        early, late = (scorer(images, prompts, timestep=torch.full((4,), step)) for step in (1, 951))
        assert (early - late).abs().max() > 1e-3
