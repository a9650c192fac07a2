"""The strength of trained weights, with every adapter: its ends, its middle, and that nothing of it stays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from seedpo.errors import ConfigError
from seedpo.models.policy import PipelinePolicy
from seedpo.protocols import TrainedDenoiser
from tests.models.test_references import BUILDERS, answers, network_inputs, on_initial, values
from tests.models.tiny import move

KINDS = ["lora", "text", "full", "full in bf16", "continued", "int8"]
EACH = pytest.mark.parametrize("kind", KINDS)


def trained(kind: str) -> PipelinePolicy:
    return move(BUILDERS[kind](), seed=9)


def at(policy: PipelinePolicy, strength: float, inputs: Any) -> Tensor:
    with policy.at_strength(strength):
        return answers(policy, inputs)


@EACH
def test_its_ends_are_the_model_before_training_and_the_trained_one(kind: str) -> None:
    policy = trained(kind)
    inputs = network_inputs(policy)
    assert isinstance(policy, TrainedDenoiser)
    first, last = on_initial(policy, *inputs), answers(policy, inputs)
    assert (first - last).abs().max() > 1e-3
    torch.testing.assert_close(at(policy, 0.0, inputs), first, atol=0.02 if "bf16" in kind else 1e-5, rtol=1e-4)
    assert torch.equal(at(policy, 1.0, inputs), last)


def fail(policy: PipelinePolicy, inputs: Any, wanted: Tensor) -> None:
    with policy.at_strength(0.3):
        assert not torch.equal(answers(policy, inputs), wanted)
        raise KeyError


@EACH
def test_nothing_stays_of_it(kind: str) -> None:
    policy = trained(kind)
    inputs, before = network_inputs(policy), values(policy)
    wanted = answers(policy, inputs)
    with pytest.raises(KeyError):
        fail(policy, inputs, wanted)
    assert all(torch.equal(before[name], value) for name, value in policy.trainable_parameters().items())
    assert torch.equal(answers(policy, inputs), wanted)


def test_of_an_adapter_it_scales_the_product() -> None:
    policy = trained("lora")
    inputs = network_inputs(policy)
    found = at(policy, 0.25, inputs)
    with torch.no_grad():
        for name, value in policy.trainable_parameters().items():
            if "lora_B" in name:
                value.mul_(0.25)
    torch.testing.assert_close(found, answers(policy, inputs))


@pytest.mark.parametrize("kind", ["full", "continued"])
def test_of_all_other_weights_it_is_the_line_between_both(kind: str) -> None:
    policy = trained(kind)
    frozen = policy.adapter.frozen
    start = policy.adapter.reference_weights() if frozen is None else dict(frozen.named_parameters())
    first = {name: value.detach().clone() for name, value in start.items()}
    last = values(policy)
    with policy.at_strength(1.5):
        for name, value in policy.trainable_parameters().items():
            wanted = first[name].double() + 1.5 * (last[name].double() - first[name].double())
            torch.testing.assert_close(value.detach().double(), wanted, atol=1e-6, rtol=1e-5)


def test_the_model_before_training_has_none() -> None:
    """So that mixing at a strength mixes with the model as it was."""
    for kind in KINDS:
        policy = trained(kind)
        inputs = network_inputs(policy)
        wanted = on_initial(policy, *inputs)
        with policy.at_strength(0.5):
            assert torch.equal(on_initial(policy, *inputs), wanted), kind


def test_of_a_dora() -> None:
    policy = trained("dora")
    with pytest.raises(ConfigError, match="DoRA"), policy.at_strength(0.5):
        pass
    with policy.at_strength(1.0):
        pass
