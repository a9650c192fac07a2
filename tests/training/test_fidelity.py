"""Each switch of `fidelity` reproduces the fault that it is named after, and nothing does so unasked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from seedpo.data.pairs.changes import SQUARE_TIME_IDS
from seedpo.errors import ConfigError
from seedpo.methods.noise_dpo import NoiseDPO
from seedpo.methods.sources.offline import OfflinePairs
from seedpo.models.policy import build_policy
from seedpo.protocols import LabelledPair
from seedpo.settings import build_config
from seedpo.training.configuration import resolve_config
from seedpo.training.run import build_method, build_pairs, build_source, train
from seedpo.training.settings import FidelityConfig, RunConfig
from tests.models.tiny import move, network_inputs, on_reference, tiny_policy
from tests.small_runs import FEW_PAIRS, metrics, small
from tests.training.toys import ToyPolicy, cpu_accelerator, toy_config, toy_trainer


def test_every_switch_is_off_by_default_and_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "fidelity.md").read_text(encoding="utf-8")
    for name, field in FidelityConfig.model_fields.items():
        assert field.default is False
        assert f"`fidelity.{name}`" in text


def weights_after(path: Path, **changes: Any) -> torch.Tensor:
    policy = ToyPolicy()
    toy_trainer(path, toy_config(evaluate_every=0, **changes), policy=policy).train()
    return policy.weights()


def test_gradients_never_clipped(tmp_path: Path) -> None:
    clipped = weights_after(tmp_path / "clipped", optimizer={"max_grad_norm": 1e-3})
    free = weights_after(tmp_path / "free", optimizer={"max_grad_norm": 1e9})
    switched = weights_after(
        tmp_path / "switched", optimizer={"max_grad_norm": 1e-3}, fidelity={"gradients_never_clipped": True}
    )
    assert switched.equal(free)
    assert not switched.equal(clipped)


def pairs_config(folder: Path, **changes: Any) -> RunConfig:
    return build_config(RunConfig, small(folder), {"method": "diffusion-dpo"}, changes)


TIES = (1, 3, 6)


def with_ties(folder: Path) -> str:
    """The small set with some labels replaced by 0.5 on both sides."""
    table = pq.read_table(pairs_config(folder).data)
    for side in ("label_0", "label_1"):
        labels = [0.5 if row in TIES else label for row, label in enumerate(table[side].to_pylist())]
        table = table.set_column(table.column_names.index(side), side, pa.array(labels))
    pq.write_table(table, folder / "ties.parquet")
    return str(folder / "ties.parquet")


def test_ties_as_wins(tmp_path: Path) -> None:
    data = with_ties(tmp_path)
    assert len(build_pairs(pairs_config(tmp_path, data=data))) == FEW_PAIRS - len(TIES)
    half = build_pairs(pairs_config(tmp_path, data=data, pairs={"ties": "half"}))
    assert tuple(row for row in range(len(half)) if half[row].chosen_probability == 0.5) == TIES
    wins = build_pairs(pairs_config(tmp_path, data=data, fidelity={"ties_as_wins": True}))
    assert [wins[row].chosen_probability for row in range(len(wins))] == [1.0] * FEW_PAIRS
    for row in TIES:
        assert wins[row].chosen.equal(half[row].chosen), "the first image wins"
        assert wins.content(row) != half.content(row), "a cache keeps them apart"


def test_square_time_ids() -> None:
    images = torch.zeros(2, 3, 8, 8)
    pair = LabelledPair(prompt="", chosen=images[0], rejected=images[1], original_size=(20, 10), crop=(3, 0))
    changed = SQUARE_TIME_IDS.pair(0, pair)
    assert (changed.original_size, changed.crop) == ((8, 8), (0, 0))


def test_square_time_ids_reach_the_pairs(tmp_path: Path) -> None:
    plain = build_pairs(pairs_config(tmp_path, pairs={"resolution": 16}))
    square = build_pairs(pairs_config(tmp_path, pairs={"resolution": 16}, fidelity={"square_time_ids": True}))
    assert plain[0].original_size == (32, 32)
    assert square[0].original_size == (16, 16)
    assert square.content(0) != plain.content(0)


@pytest.mark.parametrize("together", [True, False])
def test_independent_flips(tmp_path: Path, together: bool) -> None:
    """Of the four ways to mirror two images all occur; together, only two do."""
    changes = {"pairs": {"flip": True}} if together else {"fidelity": {"independent_flips": True}}
    config = pairs_config(tmp_path, batch_size=8, **changes)
    policy = build_policy(config)
    source = build_source(config, policy)
    assert isinstance(source, OfflinePairs)
    ways = set()
    for _ in range(5):
        batch = source.next_batch()
        assert batch.pair is not None
        rows = batch.pair.tolist()
        plain, mirrored = source.pairs.encode(rows, [False] * 8), source.pairs.encode(rows, [True] * 8)
        for side in range(8):
            way = []
            for name in ("chosen_latents", "rejected_latents"):
                is_plain = getattr(batch, name)[side].equal(getattr(plain, name)[side])
                assert is_plain or getattr(batch, name)[side].equal(getattr(mirrored, name)[side])
                way.append(is_plain)
            ways.add(tuple(way))
    assert len(ways) == (2 if together else 4)


def test_beta_without_half() -> None:
    plain = build_method(resolve_config("diffusion-dpo", {"beta": 4000.0, "gamma": 0.5}))
    switched = build_method(
        resolve_config("diffusion-dpo", {"beta": 2000.0, "gamma": 0.5, "fidelity": {"beta_without_half": True}})
    )
    assert isinstance(plain, NoiseDPO)
    assert isinstance(switched, NoiseDPO)
    assert (switched.policy_weight, switched.reference_weight) == (plain.policy_weight, plain.reference_weight)


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_a_moved_reference_is_the_policy_of_that_moment(adapter: Any) -> None:
    policy = move(tiny_policy(adapter=adapter))
    inputs = network_inputs(policy)
    with torch.no_grad():
        base, then = on_reference(policy, *inputs), policy.predict(*inputs)
    assert not base.equal(then)
    policy.adapter.move_reference()
    move(policy, seed=6)
    torch.testing.assert_close(on_reference(policy, *inputs), then, rtol=0, atol=1e-6)
    prediction = policy.predict(*inputs)
    assert not prediction.equal(then)
    on_reference(policy, *inputs)
    prediction.square().mean().backward()
    assert all(parameter.grad is not None for parameter in policy.trainable_parameters().values())


@pytest.mark.parametrize("moves", [True, False])
def test_reference_moves_on_resume(tmp_path: Path, moves: bool) -> None:
    evaluation = {"num_prompts": 1, "images_per_prompt": 1, "metrics": []}
    changes = {
        "beta": 2000.0,
        "learning_rate": 0.01,
        "evaluation": evaluation,
        "fidelity": {"reference_moves_on_resume": moves},
    }

    def margin(steps: int, resume: Any = None) -> float:
        config = pairs_config(tmp_path, max_steps=steps, **changes)
        train(config, tmp_path / "run", resume=resume, accelerator=cpu_accelerator(config), progress=False)
        return next(line["margin_abs"] for line in reversed(metrics(tmp_path / "run")) if line["kind"] == "train")

    margin(2)
    resumed = margin(3, "latest")
    assert resumed < 1e-4 if moves else resumed > 0.05, resumed


@pytest.mark.parametrize("switch", ["independent_flips", "reference_moves_on_resume", "sampled_latents"])
def test_cached_scalars_know_of_no_such_thing(switch: str) -> None:
    with pytest.raises(ConfigError, match=rf"fidelity\.{switch} needs cache\.reference = false"):
        build_config(
            RunConfig, {"cache": {"folder": "cache", "reference": True, "visits": 1}, "fidelity": {switch: True}}
        )
