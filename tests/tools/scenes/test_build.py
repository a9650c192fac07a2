from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from seedpo.errors import ConfigError
from seedpo.rewards.clip_score import load_reward
from seedpo.rewards.lrm import read_network
from seedpo.rewards.step_aware_clip import load_scorer
from seedpo.scenes.assets import ASSETS
from tests.small_runs import few_pairs
from tools.scenes.build import build, build_latent_scorer, build_scorer
from tools.scenes.card import scorer_figures


def test_the_scorers_are_reward_runs_in_half_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("clip", "pipeline"):
        shutil.copytree(ASSETS / name, tmp_path / name)
    data = str(few_pairs(tmp_path))
    build_scorer(
        tmp_path,
        changes={"max_steps": 1, "batch_size": 2, "held_out_limit": 2, "held_out": data, "timesteps": [0]},
        progress=False,
    )
    assert {value.dtype for value in load_file(tmp_path / "scorer/model.safetensors").values()} == {torch.float16}
    trained, kept = (load_scorer(tmp_path / name).model.state_dict() for name in ("scorer-run/model", "scorer"))
    assert all(torch.equal(value.half().float(), kept[name]) for name, value in trained.items())
    config = (tmp_path / "scorer-run/config.yaml").read_text()
    assert "data: scenes-scorer-pairs" in config

    build_scorer(
        tmp_path, step_aware=False, changes={"max_steps": 1, "batch_size": 2, "held_out": data}, progress=False
    )
    plain, kept = (load_file(tmp_path / name / "model.safetensors") for name in ("plain-run/model", "plain"))
    assert all(torch.equal(value.half(), kept[name]) for name, value in plain.items())
    assert type(load_reward(str(tmp_path / "plain"))).__name__ == "ClipScorer"

    import tools.scenes.card as card

    resolve = card.resolve_reward_config
    few = {"held_out": data, "timesteps": [0, 951]}
    monkeypatch.setattr(card, "resolve_reward_config", lambda changes, **more: resolve(changes=changes | few, **more))
    figures = scorer_figures(tmp_path)
    assert set(figures["accuracy_by_timestep"]) == {"0", "951"}
    assert 0 < figures["pairs"] <= 10


def test_the_latent_scorer_is_one_too_without_the_autoencoder(tmp_path: Path) -> None:
    shutil.copytree(ASSETS / "pipeline", tmp_path / "pipeline")
    few = {"max_steps": 1, "batch_size": 2, "held_out_limit": 2, "held_out": str(few_pairs(tmp_path))}
    build_latent_scorer(tmp_path, changes={**few, "timesteps": [501]}, progress=False)
    run = read_network(tmp_path / "latent-run/model").state_dict()
    kept = read_network(tmp_path / "latent").state_dict()
    assert all(torch.equal(value.half().float(), kept[name]) for name, value in run.items())
    assert [file.name for file in (tmp_path / "latent/vae").iterdir()] == ["config.json"]


def test_an_unknown_part(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"unknown part 'caption'; there are: autoencoder, .*captions, .*few, latent, all",
    ):
        build(tmp_path, part="caption")
