"""The keys of flow-matching models: they reach the process, and do nothing in silence elsewhere."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch

from seedpo.core.flow import DENSITIES, SDE_RULES, FlowProcess
from seedpo.core.processes import Process
from seedpo.core.sampling import Sampler, Sampling
from seedpo.errors import ConfigError
from seedpo.methods.settings import FlowConfig
from seedpo.models.settings import ModelSettings
from seedpo.settings import build_config
from seedpo.training import reward_run
from seedpo.training.run import build_method, process_of
from seedpo.training.settings import RewardRunConfig, RunConfig
from tests.core.denoisers import Linear, prompts, small_process
from tests.core.flow_data import flow_process


def run_process(process: Process, **changes: Any) -> Process:
    config = build_config(RunConfig, {"method": "d3po"}, changes)
    return process_of(config, SimpleNamespace(process=process))  # type: ignore[arg-type]


@pytest.mark.parametrize(("key", "table"), [("density", DENSITIES), ("sde", SDE_RULES)])
def test_the_keys_know_the_tables(key: str, table: dict[str, Any]) -> None:
    field = FlowConfig.model_fields[key]
    assert set(get_args(field.annotation)) == set(table)
    assert getattr(flow_process(), key) == field.default


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("sde", SDE_RULES)
def test_they_reach_the_process(density: str, sde: str) -> None:
    own = flow_process(shift=3.0)
    process = run_process(own, flow={"density": density, "sde": sde})
    assert isinstance(process, FlowProcess)
    assert (process.density, process.sde, process.shift, process.levels) == (density, sde, 3.0, own.levels)
    assert process.usual_eta == SDE_RULES[sde].usual_eta


@pytest.mark.parametrize(("key", "value"), [("density", "uniform"), ("sde", "cps")])
def test_other_models_refuse_them(key: str, value: str) -> None:
    ddpm = small_process()
    with pytest.raises(ConfigError, match=rf"^flow\.{key} = {value}: .* leave it out"):
        run_process(ddpm, flow={key: value})
    assert run_process(ddpm) is ddpm


def test_without_an_eta_ddim_is_ancestral_bit_for_bit() -> None:
    drawn = [
        Sampler(Linear(), Sampling(num_inference_steps=5, guidance_scale=1.0, eta=eta)).sample(
            torch.ones(2, 1, 2, 2), prompts(0.1, 0.2), None, generator=torch.Generator().manual_seed(0)
        )
        for eta in (None, 1.0, 0.9)
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_the_published_square_needs_its_rule() -> None:
    with pytest.raises(ConfigError, match=r"fidelity\.cps_square = true .* set flow\.sde to cps"):
        build_config(RunConfig, {"method": "d3po", "fidelity": {"cps_square": True}})
    for square in (False, True):
        config = build_config(RunConfig, {"method": "d3po", "flow": {"sde": "cps"}, "fidelity": {"cps_square": square}})
        assert build_method(config).square is square


@pytest.mark.parametrize("value", [0.0, 1.1, -0.5])
def test_etas_out_of_range_are_refused(value: float) -> None:
    with pytest.raises(ConfigError, match=r"sampling\.eta"):
        build_config(RunConfig, {"method": "d3po", "sampling": {"eta": value}})


def test_a_preference_model_s_previews_have_the_model_s_own_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[ModelSettings] = []

    def load(settings: ModelSettings) -> Any:
        loaded.append(settings)
        return SimpleNamespace(process=flow_process())

    monkeypatch.setattr(reward_run, "load_denoiser", load)
    keys = {"model": "owner/name", "max_sequence_length": 64, "embedded_guidance": 3.5}
    reward_run.build_denoiser(build_config(RewardRunConfig, keys))
    assert {key: getattr(loaded[0], key) for key in keys} == keys
    with pytest.raises(ConfigError, match=r"timesteps: 1000 is beyond .* 999"):
        reward_run.build_denoiser(build_config(RewardRunConfig, {**keys, "timesteps": [1000]}))
