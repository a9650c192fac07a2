from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from seedpo.config import OptimizerConfig
from seedpo.errors import ConfigError, RunFolderError
from seedpo.training.codec import load_tree, save_tree
from seedpo.training.optim import (
    build_optimizer,
    clip_gradients,
    learning_rate_at,
    optimizer_state,
    restore_optimizer,
    scale_gradients,
    set_learning_rate,
)

SETTINGS = OptimizerConfig(weight_decay=0.1, beta1=0.8, beta2=0.95)


def parameters(*shapes: tuple[int, ...]) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {
        f"layer.{index}": nn.Parameter(torch.randn(shape, generator=generator)) for index, shape in enumerate(shapes)
    }


def test_warm_up_rises_linearly_to_a_constant() -> None:
    rates = [learning_rate_at(step, peak=1.0, warmup_steps=4) for step in range(1, 8)]
    assert rates == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0]
    assert learning_rate_at(1, peak=0.3, warmup_steps=0) == 0.3


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


def test_state_by_name_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole, halves = parameters((3,), (2, 2), (1,)), parameters((3,), (2, 2), (1,))
    take_steps(whole, build_optimizer(whole, learning_rate=0.1, config=SETTINGS), range(6))

    first = build_optimizer(halves, learning_rate=0.1, config=SETTINGS)
    take_steps(halves, first, range(3))
    save_tree(optimizer_state(first, list(halves)), tmp_path / "optimizer")
    second = build_optimizer(halves, learning_rate=0.1, config=SETTINGS)
    restore_optimizer(second, list(halves), load_tree(tmp_path / "optimizer"))
    take_steps(halves, second, range(3, 6))
    assert all(torch.equal(whole[name], halves[name]) for name in whole)


def test_state_of_other_parameters_is_refused() -> None:
    old, new = parameters((3,), (2,)), parameters((3,))
    optimizer = build_optimizer(old, learning_rate=0.1, config=SETTINGS)
    state = optimizer_state(optimizer, list(old))
    with pytest.raises(RunFolderError, match=r"1 parameters differ, first 'layer\.1'"):
        restore_optimizer(build_optimizer(new, learning_rate=0.1, config=SETTINGS), list(new), state)


def test_nothing_to_train_is_refused() -> None:
    with pytest.raises(ConfigError, match="no trainable parameter"):
        build_optimizer({}, learning_rate=0.1, config=SETTINGS)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_below_float32_are_refused(dtype: torch.dtype) -> None:
    weights = {"layer": nn.Parameter(torch.zeros(2, dtype=dtype))}
    with pytest.raises(ConfigError, match=r"layer is torch\.b?float16; load it as float32"):
        build_optimizer(weights, learning_rate=0.1, config=SETTINGS)
