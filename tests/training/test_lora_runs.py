"""Runs with other adapters than the usual one: they resume exactly."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.numpy import load_file, save_file

from seedpo.errors import ConfigError, DataError
from seedpo.evaluation.targets import ModelOptions, load_target, parse_target
from seedpo.models.kohya import kohya_weights
from seedpo.models.loading import load_pipeline
from seedpo.models.lora_file import LORA_FILE, alphas, by_part, read_description, read_layers
from seedpo.models.policy import PipelinePolicy, build_policy
from seedpo.models.settings import LoraForm
from seedpo.planning.configurations import model_configuration
from seedpo.planning.networks import build_policy as planned_policy
from seedpo.publishing.export import export_run
from seedpo.scenes.assets import PIPELINE
from seedpo.training.caches import reference_settings
from seedpo.training.configuration import resolve_config
from seedpo.training.run import train
from tests.models.tiny import move, network_inputs, on_reference
from tests.small_runs import metrics, small
from tests.training.toys import cpu_accelerator


def run(folder: Path, out: Path, *, steps: int, resume: bool = False, **changes: Any) -> bytes:
    quick = {"metrics": [], "rewards": []}
    keys = small(folder, max_steps=steps, checkpoint_every=1, learning_rate=0.01, evaluation=quick, **changes)
    config = resolve_config("diffusion-dpo", keys)
    train(config, out, resume="latest" if resume else None, accelerator=cpu_accelerator(config), progress=False)
    return (out / "adapter" / LORA_FILE).read_bytes()


@pytest.mark.parametrize(
    "form",
    [
        {"lora_dropout": 0.5},
        {"lora_dora": True, "lora_alpha": 2.0, "lora_targets": ["all"]},
        {"base_precision": "int8"},
        {"lora_text_encoder": True, "ema_decay": 0.9, "gradient_checkpointing": True},
        {"lora_text_encoder": True, "base_precision": "nf4", "lora_dora": True},
        {"base_precision": "nf4", "lora_dropout": 0.1},
    ],
)
def test_a_resumed_run_is_the_one_that_never_stopped(tmp_path: Path, form: dict[str, Any]) -> None:
    whole = run(tmp_path, tmp_path / "whole", steps=3, **form)
    run(tmp_path, tmp_path / "parts", steps=2, **form)
    assert run(tmp_path, tmp_path / "parts", steps=3, resume=True, **form) == whole
    losses = [[line["loss"] for line in metrics(tmp_path / name) if "loss" in line] for name in ("whole", "parts")]
    assert losses[0] == losses[1]


def test_dropout_changes_a_run(tmp_path: Path) -> None:
    assert run(tmp_path, tmp_path / "a", steps=2) != run(tmp_path, tmp_path / "b", steps=2, lora_dropout=0.5)


FORM = LoraForm(rank=3, alpha=6.0, targets=("mlp", "convolution"))


def published_lora(folder: Path, *, kohya: bool = False) -> Path:
    """A LoRA of the embedded model that changes its images, as somebody else's file."""
    policy = move(PipelinePolicy(load_pipeline(PIPELINE), lora=FORM))
    policy.save(folder)
    if not kohya:
        return folder
    layers, content = (
        by_part(read_layers(load_file(folder / LORA_FILE)))["unet"],
        read_description(folder / LORA_FILE, "unet"),
    )
    tensors = kohya_weights(layers, alphas({name.partition(".lora_")[0] for name in layers}, content))
    file = folder / "web.safetensors"
    save_file(tensors, file)
    return file


@torch.no_grad()
def predicted(pipeline: Any, inputs: Any) -> torch.Tensor:
    latents, times, conditioning = inputs
    prediction: torch.Tensor = pipeline.unet(latents, times, encoder_hidden_states=conditioning.prompt_embeds).sample
    return prediction


@pytest.mark.parametrize("kohya", [False, True])
def test_training_continues_a_lora(tmp_path: Path, kohya: bool) -> None:
    lora, run_folder = published_lora(tmp_path / "theirs", kohya=kohya), tmp_path / "parts"
    theirs = load_pipeline(PIPELINE)
    theirs.load_lora_weights(tmp_path / "theirs", weight_name=lora.name if kohya else LORA_FILE)
    whole = run(tmp_path, tmp_path / "whole", steps=3, initial_lora=str(lora))
    first = next(line for line in metrics(tmp_path / "whole") if "loss" in line)
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    run(tmp_path, run_folder, steps=2, initial_lora=str(lora))
    shutil.rmtree(tmp_path / "theirs")  # everything below works without it
    assert run(tmp_path, run_folder, steps=3, resume=True, initial_lora=str(lora)) == whole
    content = read_description(run_folder / "adapter" / LORA_FILE, "unet")
    assert (content["r"], content["lora_alpha"]) == (3, 6.0)

    ours, again = DiffusionPipeline.from_pretrained(PIPELINE), load_pipeline(PIPELINE)
    ours.load_lora_weights(run_folder / "adapter")
    web = export_run(run_folder, tmp_path / "web" / "a.safetensors", format="kohya")
    again.load_lora_weights(web.parent, weight_name=web.name)
    merged = load_pipeline(export_run(run_folder, tmp_path / "merged", format="pipeline"))
    start, end = (load_target(parse_target(f"{run_folder}{at}", ModelOptions())) for at in ("@base", ""))
    inputs = network_inputs(PipelinePolicy(load_pipeline(PIPELINE)))
    with torch.no_grad():
        trained = end.predict(*inputs)
        torch.testing.assert_close(start.predict(*inputs), predicted(theirs, inputs))
        assert (trained - start.predict(*inputs)).abs().max() > 1e-4
    for pipeline in (ours, again, merged):
        torch.testing.assert_close(predicted(pipeline, inputs), trained, rtol=1e-3, atol=1e-4)


def test_the_reference_has_the_initial_lora(tmp_path: Path) -> None:
    lora = published_lora(tmp_path / "theirs")
    config = resolve_config("diffusion-dpo", small(tmp_path, initial_lora=str(lora)) | {"lora_rank": 3})
    policy, plain = build_policy(config), PipelinePolicy(load_pipeline(PIPELINE))
    inputs = network_inputs(policy)
    start = policy.predict(*inputs)
    assert torch.equal(start, on_reference(policy, *inputs))
    assert (start - plain.predict(*inputs)).abs().max() > 1e-3
    before = reference_settings(policy, config)
    move(policy)
    assert torch.equal(on_reference(policy, *inputs), start)
    assert (policy.predict(*inputs) - start).abs().max() > 1e-3
    assert reference_settings(policy, config) == before != reference_settings(plain, config)
    planned = planned_policy(config, model_configuration(config)).trainable_parameters()
    assert {n: v.shape for n, v in planned.items()} == {n: v.shape for n, v in policy.trainable_parameters().items()}


@pytest.mark.parametrize("precision", ["int8", "nf4"])
def test_a_lora_on_a_rounded_base_is_merged_into_the_original(tmp_path: Path, precision: str) -> None:
    lora = published_lora(tmp_path / "theirs")
    run(tmp_path, tmp_path / "run", steps=2, initial_lora=str(lora), base_precision=precision)
    first = next(line for line in metrics(tmp_path / "run") if "loss" in line)
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    merged = load_pipeline(export_run(tmp_path / "run", tmp_path / "merged", format="pipeline"))
    plain = load_pipeline(PIPELINE)
    plain.load_lora_weights(tmp_path / "run" / "adapter")
    inputs = network_inputs(PipelinePolicy(load_pipeline(PIPELINE)))
    expected = predicted(plain, inputs)
    torch.testing.assert_close(predicted(merged, inputs), expected, rtol=1e-3, atol=1e-4)
    drawn = load_target(parse_target(str(tmp_path / "run"), ModelOptions())).predict(*inputs)
    assert 1e-4 < (drawn - expected).norm() / expected.norm() < 0.3, "images of the run are those of its rounded base"


def test_a_rounded_base_is_another_reference(tmp_path: Path) -> None:
    config = resolve_config("diffusion-dpo", small(tmp_path))
    digests = [
        reference_settings(build_policy(config.model_copy(update={"base_precision": precision})), config)["unet"]
        for precision in ("full", "int8", "nf4", "nf4")
    ]
    assert len(set(digests)) == 3
    assert digests[2] == digests[3]


class TestRefusals:
    @pytest.mark.parametrize(
        ("key", "value"),
        [("lora_rank", 5), ("lora_alpha", 1.0), ("lora_targets", ["attention", "mlp"]), ("lora_dora", True)],
    )
    def test_keys_that_contradict_the_file(self, tmp_path: Path, key: str, value: Any) -> None:
        keys = small(tmp_path, initial_lora=str(published_lora(tmp_path / "theirs"))) | {"lora_rank": 3, key: value}
        with pytest.raises(ConfigError, match=rf"^{key} = .* contradicts initial_lora"):
            build_policy(resolve_config("diffusion-dpo", keys))

    def test_files_that_cannot_be_continued(self, tmp_path: Path) -> None:
        folder = published_lora(tmp_path / "theirs")
        tensors = load_file(folder / LORA_FILE)

        def refused(place: Path, message: str) -> None:
            with pytest.raises(DataError, match=message):
                build_policy(resolve_config("diffusion-dpo", small(tmp_path, initial_lora=str(place))))

        refused(tmp_path / "absent", r"LoRA .* is neither a file, a folder nor a name")
        (tmp_path / "empty").mkdir()
        refused(tmp_path / "empty", r"holds 0 \.safetensors files")
        shutil.copy(folder / LORA_FILE, folder / "other.safetensors")
        (folder / LORA_FILE).rename(folder / "another.safetensors")
        refused(folder, r"holds 2 \.safetensors files")
        for name, message in (
            ("lora_te_text_model_q.lora_down.weight", "text encoders"),
            ("text_encoder.layer.lora_A.weight", "text encoders"),
            ("lora_unet_a.dora_scale", "norms of a DoRA"),
        ):
            save_file({**tensors, name: np.zeros(1)}, tmp_path / "odd.safetensors")
            refused(tmp_path / "odd.safetensors", message)
        cut = tmp_path / "cut.safetensors"
        cut.write_bytes((folder / "other.safetensors").read_bytes()[:-50])
        refused(cut, "cannot be read")

    def test_the_whole_network_has_no_lora_to_continue(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="initial_lora needs adapter = lora"):
            resolve_config("diffusion-dpo", small(tmp_path, initial_lora="x", adapter="full"))
