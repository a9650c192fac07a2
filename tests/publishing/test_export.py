"""What is exported draws the images of the policy that was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file

from seedpo.errors import ConfigError, RunFolderError, SeedpoError
from seedpo.models.kohya import kohya_metadata
from seedpo.models.loading import load_pipeline
from seedpo.models.lora_file import LORA_FILE
from seedpo.models.policy import build_policy
from seedpo.publishing.export import FORMATS, export_run
from seedpo.training.configuration import resolve_config
from seedpo.training.run import train
from tests.models.published import drawn_by_diffusers, drawn_by_policy, pipeline_of, some_latents
from tests.publishing.handmade import base_folder, finished_run
from tests.small_runs import small
from tests.training.toys import cpu_accelerator


def same_images(pipeline: Any, policy: Any, *, within: float = 1e-4) -> None:
    latents = some_latents(policy)
    expected = drawn_by_policy(policy, latents)
    torch.testing.assert_close(drawn_by_diffusers(pipeline, latents), expected, rtol=0, atol=within)
    with policy.reference():
        assert (drawn_by_policy(policy, latents) - expected).abs().max() > 0.01, "training must be seen"


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_adapters_load_into_the_base_model(tmp_path: Path, kind: str) -> None:
    policy = finished_run(tmp_path / "run", model=str(base_folder(tmp_path / "base", kind)))
    for format in ("kohya", "diffusers-lora"):
        file = export_run(tmp_path / "run", tmp_path / format / "a.safetensors", format=format)
        plain = pipeline_of(kind)
        plain.load_lora_weights(file.parent, weight_name=file.name)
        same_images(plain, policy)
        assert [path.name for path in file.parent.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_every_form_of_an_adapter_in_every_format(tmp_path: Path, kind: str) -> None:
    """diffusers takes the norms of a DoRA out of kohya's format: these are compared in tests/models/test_lora.py."""
    base = str(base_folder(tmp_path / "base", kind))
    for name, dora in (("plain", False), ("dora", True)):
        run, form = tmp_path / name, {"lora_alpha": 6.0, "lora_targets": ["all"], "lora_dora": dora}
        policy = finished_run(run, model=base, **form)
        for format in ("diffusers-lora", *([] if dora else ["kohya"])):
            file = export_run(run, tmp_path / f"{name}-{format}" / "a.safetensors", format=format)
            plain = pipeline_of(kind)
            plain.load_lora_weights(file.parent, weight_name=file.name)
            same_images(plain, policy)
        merged = DiffusionPipeline.from_pretrained(export_run(run, tmp_path / f"{name}-whole", format="pipeline"))
        merged.set_progress_bar_config(disable=True)
        same_images(merged, policy)
    with safe_open(tmp_path / "plain-kohya" / "a.safetensors", framework="pt") as opened:
        metadata = opened.metadata()
    assert (metadata["ss_network_dim"], metadata["ss_network_alpha"]) == ("3", "6")


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_pipelines_need_nothing_else(tmp_path: Path, kind: str, adapter: str) -> None:
    policy = finished_run(tmp_path / "run", model=str(base_folder(tmp_path / "base", kind)), adapter=adapter)
    out = export_run(tmp_path / "run", tmp_path / "out", format="pipeline")
    pipeline = DiffusionPipeline.from_pretrained(out)
    pipeline.set_progress_bar_config(disable=True)
    assert type(pipeline) is type(pipeline_of(kind))
    assert set(load_file(out / "unet" / "diffusion_pytorch_model.safetensors")) == set(
        pipeline_of(kind).unet.state_dict()
    )
    same_images(pipeline, policy)
    for path in out.rglob("*.json"):
        assert str(tmp_path) not in path.read_text(), "a published file names a folder of this machine"


def test_half_precision_and_what_web_uis_read(tmp_path: Path) -> None:
    finished_run(tmp_path / "run", model=str(base_folder(tmp_path / "base", "sd15")))
    file = export_run(tmp_path / "run", tmp_path / "a.safetensors", format="kohya", half=True)
    assert {value.dtype for value in load_file(file).values()} <= {torch.float16, torch.float32}
    assert {value.dtype for name, value in load_file(file).items() if "lora_up" in name} == {torch.float16}
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    assert (metadata["ss_network_module"], metadata["ss_network_dim"]) == ("networks.lora", "3")
    export_run(tmp_path / "run", tmp_path / "whole", format="pipeline", half=True)
    for part in ("unet", "vae"):
        weights = load_file(tmp_path / "whole" / part / "diffusion_pytorch_model.safetensors")
        assert {value.dtype for value in weights.values()} == {torch.float16}


def test_the_text_tells_web_uis_the_base_model() -> None:
    for width, version in ((768, "sd_v1"), (1024, "sd_v2"), (2048, "sdxl_base_v1-0"), (64, None)):
        tensors = {"lora_unet_a_attn2_to_k.lora_down.weight": np.zeros((4, width), dtype=np.float32)}
        assert kohya_metadata(tensors).get("ss_base_model_version") == version


@pytest.mark.parametrize(
    ("kind", "method", "changes"),
    [
        ("sd15", "d3po", {"reward": "jpeg-compressibility"}),
        ("sd21", "diffusion-dpo", {"pairs": {"resolution": 32}}),
        ("sdxl", "spo", {"gradient_checkpointing": True}),
    ],
)
def test_what_was_trained_is_drawn_by_plain_diffusers(
    tmp_path: Path, kind: str, method: str, changes: dict[str, Any]
) -> None:
    """Nothing of seedpo is needed: the base model's own pipeline, and the adapter as the run left it."""
    base = base_folder(tmp_path / "base", kind)
    quick = {"metrics": ["pairwise_diversity"], "rewards": ["jpeg-compressibility"]}
    settings = {"model": str(base), "resolution": 32, "learning_rate": 0.05, "evaluation": quick, **changes}
    config = resolve_config(method, small(tmp_path, **settings))
    train(config, tmp_path / "run", accelerator=cpu_accelerator(config), progress=False)
    policy = build_policy(config)
    policy.load(tmp_path / "run" / "adapter")
    plain = DiffusionPipeline.from_pretrained(base)
    plain.load_lora_weights(tmp_path / "run" / "adapter")
    plain.set_progress_bar_config(disable=True)
    same_images(plain, policy)


def test_a_trained_run_and_its_checkpoints(tmp_path: Path) -> None:
    config = resolve_config("diffusion-dpo", small(tmp_path, checkpoint_every=1, learning_rate=0.05))
    run = tmp_path / "run"
    train(config, run, accelerator=cpu_accelerator(config), progress=False)
    first = export_run(run, tmp_path / "first.safetensors", format="diffusers-lora", step=1)
    last = export_run(run, tmp_path / "last.safetensors", format="diffusers-lora")
    again = export_run(run, tmp_path / "again.safetensors", format="diffusers-lora", step=2)
    assert load_file(last).keys() == load_file(run / "adapter" / LORA_FILE).keys()
    assert last.read_bytes() == again.read_bytes() != first.read_bytes()
    export_run(run, tmp_path / "whole", format="pipeline")
    policy = build_policy(config)
    policy.load(run / "adapter")
    same_images(load_pipeline(tmp_path / "whole"), policy)
    with pytest.raises(RunFolderError, match=r"has no checkpoint of step 7; .*: 1, 2"):
        export_run(run, tmp_path / "a.safetensors", format="kohya", step=7)
    weights = run / "checkpoints" / "checkpoint-000001" / "policy" / LORA_FILE
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(SeedpoError, match="is damaged"):
        export_run(run, tmp_path / "a.safetensors", format="kohya", step=1)


class TestRefusals:
    def test_formats_and_places(self, tmp_path: Path) -> None:
        finished_run(tmp_path / "run", model=str(base_folder(tmp_path / "base", "sd15")))
        assert list(FORMATS) == ["diffusers-lora", "kohya", "pipeline"]
        with pytest.raises(ConfigError, match=r"unknown format 'onnx'; there are: diffusers-lora, kohya, pipeline"):
            export_run(tmp_path / "run", tmp_path / "a", format="onnx")
        with pytest.raises(ConfigError, match=r"must end in \.safetensors"):
            export_run(tmp_path / "run", tmp_path / "a.ckpt", format="kohya")
        with pytest.raises(ConfigError, match="exists already; choose another --out"):
            export_run(tmp_path / "run", tmp_path / "base", format="pipeline")
        assert json.loads((tmp_path / "base" / "model_index.json").read_text())

    def test_a_run_without_adapter(self, tmp_path: Path) -> None:
        finished_run(tmp_path / "run", model=str(base_folder(tmp_path / "base", "sd15")), adapter="full")
        with pytest.raises(ConfigError, match="has no adapter; use --format pipeline"):
            export_run(tmp_path / "run", tmp_path / "a.safetensors", format="kohya")

    def test_a_run_that_did_not_finish(self, tmp_path: Path) -> None:
        finished_run(tmp_path / "run", model=str(base_folder(tmp_path / "base", "sd15")))
        (tmp_path / "run" / "adapter").rename(tmp_path / "elsewhere")
        with pytest.raises(RunFolderError, match=r"holds no trained weights"):
            export_run(tmp_path / "run", tmp_path / "a.safetensors", format="kohya")
