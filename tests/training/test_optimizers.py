from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import nn

from seedpo.errors import ConfigError, RunFolderError
from seedpo.training.codec import load_tree, save_tree
from seedpo.training.optimizer_settings import OptimizerConfig
from seedpo.training.optimizers import (
    OPTIMIZERS,
    build_optimizer,
    clip_gradients,
    learning_rate_at,
    optimizer_state,
    restore_optimizer,
    scale_gradients,
    set_learning_rate,
)
from seedpo.training.schedules import SCHEDULES
from tests.training.toys import toy_config

SETTINGS = OptimizerConfig(weight_decay=0.1, beta1=0.8, beta2=0.95)


def parameters(*shapes: tuple[int, ...]) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {
        f"layer.{index}": nn.Parameter(torch.randn(shape, generator=generator)) for index, shape in enumerate(shapes)
    }


def rates(schedule: str, *, warmup_steps: int, max_steps: int = 8) -> list[float]:
    optimizer = {"schedule": schedule, "warmup_steps": warmup_steps}
    config = toy_config(learning_rate=2.0, max_steps=max_steps, optimizer=optimizer)
    return [learning_rate_at(step, config=config) for step in range(1, max_steps + 1)]


def test_warm_up_rises_linearly_to_a_constant() -> None:
    assert rates("constant", warmup_steps=4) == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0, 2.0]
    assert rates("constant", warmup_steps=0)[0] == 2.0


def test_schedules_fall_from_the_peak_to_zero_at_the_end() -> None:
    assert rates("linear", warmup_steps=0) == [2.0, 1.75, 1.5, 1.25, 1.0, 0.75, 0.5, 0.25]
    assert rates("linear", warmup_steps=4) == [0.5, 1.0, 1.5, 2.0, 2.0, 1.5, 1.0, 0.5]
    cosine = rates("cosine", warmup_steps=0)
    assert cosine == pytest.approx([1 + math.cos(math.pi * step / 8) for step in range(8)])
    assert rates("cosine", warmup_steps=8) == rates("constant", warmup_steps=8)


def test_one_step_is_adamw() -> None:
    # arXiv 1711.05101: decay by lr * wd, then lr * m_hat / (sqrt(v_hat) + eps); at step 1 that is lr * sign(g).
    trained = parameters((3,))
    before = trained["layer.0"].detach().clone()
    optimizer = build_optimizer(trained, learning_rate=1.0, config=SETTINGS)
    set_learning_rate(optimizer, 0.01)
    trained["layer.0"].grad = torch.tensor([2.0, -3.0, 0.5])
    optimizer.step()
    expected = before * (1 - 0.01 * 0.1) - 0.01 * torch.tensor([1.0, -1.0, 1.0])
    torch.testing.assert_close(trained["layer.0"].detach(), expected, rtol=1e-6, atol=1e-7)
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.95)


def test_a_large_gradient_is_scaled_to_the_limit_and_its_norm_reported() -> None:
    trained = list(parameters((3,), (2, 2)).values())
    for parameter in trained:
        parameter.grad = torch.full_like(parameter, 100.0)
    direction = trained[0].grad / trained[0].grad.norm()
    assert clip_gradients(trained, max_grad_norm=0.5) == pytest.approx(100 * 7**0.5)
    assert float(torch.cat([parameter.grad.flatten() for parameter in trained]).norm()) == pytest.approx(0.5, rel=1e-5)
    torch.testing.assert_close(trained[0].grad / trained[0].grad.norm(), direction)


def test_a_small_gradient_is_left_alone() -> None:
    trained = list(parameters((4,)).values())
    trained[0].grad = torch.full((4,), 0.1)
    assert clip_gradients(trained, max_grad_norm=0.5) == pytest.approx(0.2)
    assert torch.equal(trained[0].grad, torch.full((4,), 0.1))


def test_gradients_can_be_scaled() -> None:
    trained = list(parameters((2,), (2,)).values())
    trained[0].grad = torch.tensor([1.0, 2.0])
    scale_gradients(trained, 0.5)
    assert trained[0].grad.tolist() == [0.5, 1.0]
    assert trained[1].grad is None


def take_steps(trained: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, seeds: range) -> None:
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        for parameter in list(trained.values())[:2]:  # the last one never gets a gradient
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


@pytest.mark.parametrize("name", ["adamw", "adafactor", "adamw8bit"])
def test_state_by_name_goes_on_bit_for_bit(tmp_path: Path, name: str) -> None:
    settings = SETTINGS.model_copy(update={"name": name})
    shapes = ((3,), (64, 65), (1,))  # bitsandbytes keeps the moments of small tensors in float32
    whole, halves = parameters(*shapes), parameters(*shapes)
    take_steps(whole, build_optimizer(whole, learning_rate=0.1, config=settings), range(6))

    first = build_optimizer(halves, learning_rate=0.1, config=settings)
    take_steps(halves, first, range(3))
    save_tree(optimizer_state(first, list(halves)), tmp_path / "optimizer")
    second = build_optimizer(halves, learning_rate=0.1, config=settings)
    restore_optimizer(second, halves, load_tree(tmp_path / "optimizer"))
    take_steps(halves, second, range(3, 6))
    assert all(torch.equal(whole[name], halves[name]) for name in whole)

    without = build_optimizer(halves, learning_rate=0.1, config=settings)
    take_steps(halves, without, range(1))
    take_steps(whole, second, range(1))
    assert not torch.equal(whole["layer.1"], halves["layer.1"]), "the state matters"


def test_state_of_other_parameters_is_refused() -> None:
    old, new = parameters((3,), (2,)), parameters((3,))
    optimizer = build_optimizer(old, learning_rate=0.1, config=SETTINGS)
    state = optimizer_state(optimizer, list(old))
    with pytest.raises(RunFolderError, match=r"1 parameters differ, first 'layer\.1'"):
        restore_optimizer(build_optimizer(new, learning_rate=0.1, config=SETTINGS), new, state)


def test_one_step_of_adafactor_at_a_fixed_rate() -> None:
    # arXiv 1804.04235, algorithm 4, first step: v = g^2 + 1e-30, so the update is lr * sign(g), of root mean square 1,
    # whatever the size of the weights; weight decay is decoupled.
    trained = parameters((3,))
    with torch.no_grad():
        trained["layer.0"].mul_(100.0)
    before = trained["layer.0"].detach().clone()
    config = SETTINGS.model_copy(update={"name": "adafactor"})
    optimizer = build_optimizer(trained, learning_rate=0.01, config=config)
    trained["layer.0"].grad = torch.tensor([2.0, -3.0, 0.5])
    optimizer.step()
    expected = before * (1 - 0.01 * 0.1) - 0.01 * torch.tensor([1.0, -1.0, 1.0])
    torch.testing.assert_close(trained["layer.0"].detach(), expected, rtol=1e-6, atol=1e-6)


def test_adafactor_keeps_rows_and_columns_only() -> None:
    trained = parameters((5, 7))
    optimizer = build_optimizer(trained, learning_rate=0.1, config=SETTINGS.model_copy(update={"name": "adafactor"}))
    trained["layer.0"].grad = torch.ones(5, 7)
    optimizer.step()
    state = optimizer_state(optimizer, list(trained))["parameters"]["layer.0"]
    assert sum(value.numel() for value in state.values() if isinstance(value, torch.Tensor)) == 5 + 7 + 1


def test_pages_need_a_gpu() -> None:
    config = SETTINGS.model_copy(update={"name": "paged_adamw8bit"})
    with pytest.raises(ConfigError, match="paged_adamw8bit works on cuda only, but this run is on cpu"):
        build_optimizer(parameters((3,)), learning_rate=0.1, config=config)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    config = SETTINGS.model_copy(update={"name": "adamw8bit"})
    with pytest.raises(ConfigError, match=r"needs bitsandbytes, .* install it with `pip install bitsandbytes`"):
        build_optimizer(parameters((3,)), learning_rate=0.1, config=config)


def test_eight_bits_follow_adamw() -> None:
    """Block-wise quantised moments: a tenth of the way of AdamW after 20 steps is far more than their rounding."""
    plain, rounded = parameters((64, 65)), parameters((64, 65))
    start = plain["layer.0"].detach().clone()
    for trained, name in ((plain, "adamw"), (rounded, "adamw8bit")):
        optimizer = build_optimizer(trained, learning_rate=0.01, config=SETTINGS.model_copy(update={"name": name}))
        take_steps(trained, optimizer, range(20))
    way = (plain["layer.0"] - start).norm()
    assert 0 < (rounded["layer.0"] - plain["layer.0"]).norm() < 0.1 * way
    state = optimizer.state[rounded["layer.0"]]
    assert [state[name].dtype for name in ("state1", "state2")] == [torch.uint8] * 2


@pytest.mark.parametrize("name", ["adamw", "adamw8bit", "paged_adamw8bit"])
def test_settings_reach_every_adam(name: str) -> None:
    config = SETTINGS.model_copy(update={"epsilon": 1e-3})
    options = OPTIMIZERS[name].options(config)
    assert options == {"betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1}


def test_epsilon_is_added_to_the_root() -> None:
    trained = parameters((2,))
    before = trained["layer.0"].detach().clone()
    config = OptimizerConfig(weight_decay=0.0, epsilon=0.5)
    optimizer = build_optimizer(trained, learning_rate=0.01, config=config)
    trained["layer.0"].grad = torch.tensor([2.0, -0.5])
    optimizer.step()
    expected = before - 0.01 * torch.tensor([2.0 / 2.5, -0.5 / 1.0])
    torch.testing.assert_close(trained["layer.0"].detach(), expected, rtol=1e-6, atol=1e-7)


def test_adafactor_has_its_own_epsilon() -> None:
    with pytest.raises(ConfigError, match=r"epsilon = 0\.1 has no effect on adafactor"):
        toy_config(optimizer={"name": "adafactor", "epsilon": 0.1})


def test_the_names_are_those_of_the_configuration() -> None:
    assert set(OPTIMIZERS) == set(get_args(OptimizerConfig.model_fields["name"].annotation))
    assert set(SCHEDULES) == set(get_args(OptimizerConfig.model_fields["schedule"].annotation))


def test_nothing_to_train_is_refused() -> None:
    with pytest.raises(ConfigError, match="no trainable parameter"):
        build_optimizer({}, learning_rate=0.1, config=SETTINGS)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_below_float32_are_refused(dtype: torch.dtype) -> None:
    weights = {"layer": nn.Parameter(torch.zeros(2, dtype=dtype))}
    with pytest.raises(ConfigError, match=r"layer is torch\.b?float16; load it as float32"):
        build_optimizer(weights, learning_rate=0.1, config=SETTINGS)
