"""A target is loaded to draw, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from seedpo.evaluation.targets import ModelOptions, load_target, parse_target
from seedpo.models.policy import build_policy
from seedpo.training.configuration import resolve_config
from seedpo.training.run_folder import create_run_folder
from tests.models.tiny import move, network_inputs, on_reference


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_no_network_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapter: str, precision: str) -> None:
    """The denoiser of a run is its policy, the base is the reference."""
    config = resolve_config("diffusion-dpo", {"adapter": adapter, "mixed_precision": precision})
    folder, policy = create_run_folder(tmp_path / "run", config), move(build_policy(config))
    policy.save(folder.path / config.weights_folder)
    inputs = network_inputs(policy)
    expected = {"run": policy.predict(*inputs), "run@base": on_reference(policy, *inputs)}

    def copied(network: Any, memo: Any) -> None:
        raise AssertionError("a network was copied")

    monkeypatch.setattr(UNet2DConditionModel, "__deepcopy__", copied, raising=False)
    for place, prediction in expected.items():
        target = parse_target(str(tmp_path / place), ModelOptions())
        denoiser = load_target(target)
        assert torch.equal(denoiser.predict(*inputs), prediction)
        assert not any(weight.requires_grad for weight in denoiser.network.parameters())


def test_a_copied_network_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UNet2DConditionModel, "__deepcopy__", lambda network, memo: 1 / 0, raising=False)
    with pytest.raises(ZeroDivisionError):
        build_policy(resolve_config("diffusion-dpo", {"adapter": "full"}))
