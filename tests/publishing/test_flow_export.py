"""What a run on a flow-matching model leaves: for plain diffusers, as one pipeline, on the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from diffusers import AutoModel, DiffusionPipeline
from torch import Tensor
from torch.testing import assert_close

from seedpo.errors import ConfigError
from seedpo.models.lora_file import LORA_FILE
from seedpo.models.policy import PipelinePolicy
from seedpo.publishing.card import write_card
from seedpo.publishing.export import export_run
from seedpo.publishing.push import published_files
from tests.models.flow_pipelines import flow_pipeline
from tests.models.test_flow_lora import LENGTH, SIZE, called_plainly, drawn, drawn_plainly
from tests.publishing.handmade import finished_run

EACH = pytest.mark.parametrize("kind", ["sd35", "flux-dev"])


def run_of(kind: str, folder: Path, **changes: Any) -> PipelinePolicy:
    flow_pipeline(kind).save_pretrained(folder / "base")
    keys = {"model": str(folder / "base"), "resolution": SIZE, "max_sequence_length": LENGTH, **changes}
    return finished_run(folder / "run", **keys)


def whole(kind: str, folder: Path, policy: PipelinePolicy) -> Tensor:
    pipeline = DiffusionPipeline.from_pretrained(export_run(folder / "run", folder / "whole", format="pipeline"))
    return called_plainly(pipeline, policy)


@EACH
def test_an_adapter(kind: str, tmp_path: Path) -> None:
    policy = run_of(kind, tmp_path, lora_targets=["all"], lora_alpha=6.0)
    images = drawn(policy)
    export_run(tmp_path / "run", tmp_path / "out" / LORA_FILE, format="diffusers-lora")
    assert_close(drawn_plainly(kind, tmp_path / "out", policy), images, rtol=0, atol=1e-5)
    assert_close(whole(kind, tmp_path, policy), images, rtol=0, atol=1e-4)
    with pytest.raises(ConfigError, match="kohya"):
        export_run(tmp_path / "run", tmp_path / "kohya.safetensors", format="kohya")


@EACH
def test_a_whole_network(kind: str, tmp_path: Path) -> None:
    policy = run_of(kind, tmp_path, adapter="full")
    assert_close(whole(kind, tmp_path, policy), drawn(policy), rtol=0, atol=1e-5)
    card = write_card(tmp_path / "run", repository="me/mine").read_text(encoding="utf-8")
    assert 'subfolder="transformer"' in card
    names = [name for name in published_files(tmp_path / "run") if "/" in name]
    assert names == ["transformer/config.json", "transformer/diffusion_pytorch_model.safetensors"]
    # What the card says works, and no file names a folder of this machine.
    loaded = AutoModel.from_pretrained(str(tmp_path / "run" / "network"))
    assert type(loaded) is type(policy.network)
    assert str(tmp_path) not in json.dumps(json.loads((tmp_path / "run" / "network" / "config.json").read_text()))
