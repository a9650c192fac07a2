"""References that move, with every adapter: what they answer, what stays, and what a file of them holds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from seedpo.models.policy import PipelinePolicy, build_policy
from seedpo.models.settings import LoraForm, ModelSettings
from seedpo.protocols import Policy
from seedpo.settings import build_config
from tests.models.tiny import PROMPTS, move, on_reference, seeded, tiny_pipeline, tiny_policy


def continued() -> PipelinePolicy:
    """A policy that goes on from an adapter."""
    return PipelinePolicy(move(tiny_policy()).pipeline)


def of_scenes(**keys: Any) -> PipelinePolicy:
    return build_policy(build_config(ModelSettings, keys))


BUILDERS: dict[str, Callable[[], PipelinePolicy]] = {
    "lora": tiny_policy,
    "dora": partial(tiny_policy, lora=LoraForm(rank=4, dora=True)),
    "text": partial(tiny_policy, lora=LoraForm(rank=2, text_encoder=True)),
    "full": partial(tiny_policy, adapter="full"),
    "full in bf16": partial(of_scenes, adapter="full", mixed_precision="bf16"),
    "continued": continued,
    "int8": partial(of_scenes, base_precision="int8"),
    "nf4": partial(of_scenes, base_precision="nf4", lora_dora=True),
}
EACH = pytest.mark.parametrize("kind", BUILDERS)


def network_inputs(policy: PipelinePolicy) -> Any:
    """Latents, time steps and prompts as the policy reads them."""
    latents = torch.randn(2, *policy.latent_shape, generator=seeded(0))
    return latents, torch.tensor([1, 801]), policy.encode_prompts(PROMPTS[:2])


def on_initial(policy: PipelinePolicy, *inputs: Any) -> Tensor:
    with policy.initial():
        return policy.predict(*inputs)


@torch.no_grad()
def answers(policy: PipelinePolicy, inputs: Any) -> Tensor:
    return policy.predict(*inputs)


def values(policy: PipelinePolicy) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in policy.trainable_parameters().items()}


def gradients(policy: PipelinePolicy, inputs: Any, *, between: Callable[[], object]) -> dict[str, Tensor]:
    """Those of a loss whose backward pass comes after something else."""
    loss = policy.predict(*inputs).square().mean()
    between()
    loss.backward()
    found = {name: value.grad for name, value in policy.trainable_parameters().items()}
    for value in policy.trainable_parameters().values():
        value.grad = None
    return {name: value for name, value in found.items() if value is not None}


@EACH
def test_a_moved_reference_answers_as_the_policy_of_that_moment(kind: str) -> None:
    policy = BUILDERS[kind]()
    assert isinstance(policy, Policy)
    inputs = network_inputs(policy)
    start = on_reference(policy, *inputs)
    assert torch.equal(on_initial(policy, *inputs), start)
    for seed in (6, 7):
        then = answers(move(policy, seed=seed), inputs)
        policy.move_reference()
        trained = answers(move(policy, seed=seed + 10), inputs)
        assert torch.equal(on_reference(policy, *inputs), then)
        assert torch.equal(on_initial(policy, *inputs), start), "the model before training stays known"
        assert torch.equal(answers(policy, inputs), trained)
        assert len({tuple(value.flatten().tolist()) for value in (start, then, trained)}) == 3


@EACH
def test_an_average_is_the_closed_form(kind: str) -> None:
    """Weights of every moment, each with the product of the later decays, in float64."""
    policy = BUILDERS[kind]()
    inputs = network_inputs(policy)
    policy.move_reference()
    expected = {name: value.double() for name, value in values(policy).items()}
    for step, decay in enumerate((0.0, 0.9, 0.995, 0.5)):
        move(policy, seed=step)
        policy.average_reference(decay)
        for name, value in values(policy).items():
            expected[name] = decay * expected[name] + (1 - decay) * value.double()
    found = policy.adapter.reference_weights()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name].double(), value, rtol=1e-5, atol=1e-6)
    average = {name: value.clone() for name, value in found.items()}
    answered = on_reference(policy, *inputs)
    with torch.no_grad():
        for name, value in policy.trainable_parameters().items():
            value.copy_(average[name])
    assert torch.equal(answers(policy, inputs), answered)


def test_small_steps_of_an_average_do_not_vanish_in_half_precision() -> None:
    policy = BUILDERS["full in bf16"]()
    policy.move_reference()
    before = {name: value.clone() for name, value in policy.adapter.reference_weights().items()}
    move(policy, scale=1e-4)
    policy.average_reference(0.99)
    assert all(not torch.equal(before[name], value) for name, value in policy.adapter.reference_weights().items())


@EACH
def test_gradients_are_those_without_a_reference(kind: str) -> None:
    """The reference answers between the passes of the policy, with other values in the same tensors."""
    policy = move(BUILDERS[kind]())
    policy.move_reference()
    move(policy, seed=8)
    inputs = network_inputs(policy)

    def asked() -> None:
        on_reference(policy, *inputs)
        on_initial(policy, *inputs)

    alone, between = gradients(policy, inputs, between=lambda: None), gradients(policy, inputs, between=asked)
    assert alone.keys() == between.keys() == policy.trainable_parameters().keys()
    assert all(torch.equal(alone[name], value) for name, value in between.items())


@EACH
def test_tensors_stay_where_they_are(kind: str) -> None:
    policy = move(BUILDERS[kind]())
    before = {name: (value, value.data_ptr()) for name, value in policy.trainable_parameters().items()}
    policy.move_reference()
    policy.average_reference(0.5)
    on_reference(policy, *network_inputs(policy))
    for name, value in policy.trainable_parameters().items():
        assert value is before[name][0]
        assert value.data_ptr() == before[name][1]


@EACH
def test_a_file_of_the_reference_makes_it_again(tmp_path: Path, kind: str) -> None:
    policy, other = BUILDERS[kind](), BUILDERS[kind]()
    policy.move_reference()
    move(policy, seed=9)
    policy.average_reference(0.3)
    trained = answers(policy, network_inputs(policy))
    with policy.reference():
        policy.save(tmp_path / "reference")
    policy.save(tmp_path / "policy")
    other.load(tmp_path / "reference")
    other.move_reference()
    other.load(tmp_path / "policy")
    inputs = network_inputs(policy)
    assert torch.equal(on_reference(other, *inputs), on_reference(policy, *inputs))
    assert torch.equal(on_initial(other, *inputs), on_initial(policy, *inputs))
    assert torch.equal(answers(other, inputs), trained)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_recomputed_activations_see_the_policy(checkpointing: bool) -> None:
    pipeline = tiny_pipeline()
    policy = move(PipelinePolicy(pipeline, gradient_checkpointing=checkpointing))
    policy.move_reference()
    move(policy, seed=8)
    inputs = network_inputs(policy)
    found = gradients(policy, inputs, between=lambda: on_reference(policy, *inputs))
    plain = move(move(tiny_policy()), seed=8)
    for name, value in gradients(plain, inputs, between=lambda: None).items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-7)


def test_a_second_move_takes_no_more_memory() -> None:
    policy = move(tiny_policy())
    policy.move_reference()
    places = [value.data_ptr() for value in policy.adapter.reference_weights().values()]
    move(policy)
    policy.move_reference()
    assert [value.data_ptr() for value in policy.adapter.reference_weights().values()] == places
