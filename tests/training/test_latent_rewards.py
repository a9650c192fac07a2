"""Runs whose steps a latent reward ranks: which go together, and which are refused."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from seedpo.errors import ConfigError
from seedpo.models.denoiser import load_denoiser
from seedpo.models.policy import PipelinePolicy, build_policy
from seedpo.models.settings import ModelSettings
from seedpo.rewards.dina_lrm_model import DinaRewardModel
from seedpo.rewards.latent_training import latent_start
from seedpo.rewards.named import build_reward
from seedpo.rewards.settings import RewardDefinition
from seedpo.settings import merge
from seedpo.training.configuration import resolve_config
from seedpo.training.run import build_source, process_of, train
from seedpo.training.settings import RunConfig
from tests.planning.real_runs import model_folder, settings
from tests.rewards import plain_dina_lrm
from tests.rewards.plain_lrm import publish
from tests.small_runs import metrics, small
from tests.training.toys import cpu_accelerator


@pytest.fixture(scope="module")
def lrm(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"lrm-sd15@{publish(tmp_path_factory.mktemp('lrm'), 'sd15').parent}"


@pytest.fixture(scope="module")
def dina(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plain_dina_lrm.publish(tmp_path_factory.mktemp("dina"))


def source_of(config: RunConfig, *, policy: PipelinePolicy | None = None) -> Any:
    policy = policy or build_policy(config)
    policy.process = process_of(config, policy)
    return build_source(config, policy)


@pytest.mark.parametrize("method", ["lpo", "spo"])
def test_steps_are_ranked_and_nothing_is_decoded(
    lrm: str, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(tmp_path, method, reward=lrm, batch_size=3)
    monkeypatch.setattr(PipelinePolicy, "decode", lambda *args, **more: pytest.fail("something was decoded"))
    source = source_of(config)
    batch = source.next_batch()
    assert len(batch.chosen) == 3
    assert source.metrics()["pairs_kept"] > 0


def test_the_source_goes_on_with_the_same_pairs(lrm: str, tmp_path: Path) -> None:
    config = settings(tmp_path, "lpo", reward=lrm, batch_size=3)
    first = source_of(config)
    first.next_batch()
    state = first.state()
    expected = [first.next_batch() for _ in range(3)]
    again = source_of(config)
    again.restore(state)
    for batch in expected:
        assert torch.equal(again.next_batch().next_latents, batch.next_latents)


class TestMisfits:
    def refused(self, folder: Path, lrm: str, **changes: Any) -> str:
        with pytest.raises(ConfigError) as caught:
            source_of(settings(folder, "lpo", **merge({"reward": lrm}, changes)))
        message = str(caught.value)
        assert "\n" not in message
        assert lrm in message
        return message

    def test_another_number_of_channels(self, lrm: str, tmp_path: Path) -> None:
        assert "8 x 8 x 8" in self.refused(tmp_path, lrm, model="scenes")

    def test_another_autoencoder(self, lrm: str, tmp_path: Path) -> None:
        policy = build_policy(settings(tmp_path, "lpo", reward=lrm))
        policy.pipeline.vae.register_to_config(scaling_factor=0.13025)
        latent = build_reward(lrm).latent
        assert latent is not None
        assert "0.13025" in str(latent.misfit(policy))

    def test_another_process(self, lrm: str, tmp_path: Path) -> None:
        assert lrm in self.refused(tmp_path, lrm, model="scenes-flow", max_sequence_length=1)

    def test_another_noise_schedule(self, lrm: str, tmp_path: Path) -> None:
        config = settings(tmp_path, "lpo", reward=lrm)
        policy = build_policy(config)
        process: Any = policy.process
        latent = build_reward(lrm).latent
        assert latent is not None
        assert latent.misfit(policy) is None
        policy.process = replace(process, alphas_cumprod=process.alphas_cumprod**2)
        assert "noise levels" in str(latent.misfit(policy))


class TestCombinations:
    def message(self, folder: Path, **changes: Any) -> str:
        with pytest.raises(ConfigError) as caught:
            settings(folder, "lpo", **changes)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_a_sum_of_both_kinds(self, lrm: str, tmp_path: Path) -> None:
        mix = {"mix": {"terms": {lrm: 1.0, "scenes-scorer": 1.0}}}
        assert lrm in self.message(tmp_path, reward="mix", rewards=mix)

    @pytest.mark.parametrize(
        "key", ["preview_vae", "fidelity.previews_clamped_late", "fidelity.judged_at_start"], ids=str
    )
    def test_keys_of_what_is_not_there(self, lrm: str, tmp_path: Path, key: str) -> None:
        name, _, switch = key.partition(".")
        changes: dict[str, Any] = {name: {switch: True} if switch else "a/vae"}
        reward = "scenes-scorer" if switch == "judged_at_start" else lrm
        assert key in self.message(tmp_path, reward=reward, **changes)

    def test_a_sum_of_latent_rewards(self, lrm: str, tmp_path: Path) -> None:
        other = f"{lrm}/"  # the same folder under another name
        mix = {"mix": RewardDefinition.model_validate({"terms": {lrm: 1.0, other: 2.0}})}
        latent, single = build_reward("mix", definitions=mix).latent, build_reward(lrm).latent
        assert latent is not None
        assert single is not None
        noisy = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        times = torch.tensor([1, 501])
        summed, alone = (some.score_latents(noisy, ["a", "b"], timestep=times) for some in (latent, single))
        torch.testing.assert_close(summed, 3.0 * alone)
        policy = build_policy(settings(tmp_path, "lpo", reward=lrm))
        assert latent.misfit(policy) is None

    def test_finished_images_of_other_methods_are_encoded(self, lrm: str, tmp_path: Path) -> None:
        config = settings(tmp_path, "d3po", reward=lrm, batch_size=2)
        assert len(source_of(config).next_batch().chosen) == 2


def test_the_preset_is_the_published_run() -> None:
    config = resolve_config("lpo", {"model": model_folder("sd15"), "reward": "lrm-sd15"})
    assert (config.steps.candidates, config.steps.plain_steps, config.steps.inner_steps) == (4, 0, 0)
    assert (config.steps.min_gap, config.steps.min_gap_noisiest) == (0.35, 0.5)
    assert (config.sampling.num_inference_steps, config.sampling.guidance_scale) == (20, 5.0)


def test_lpo_on_the_embedded_world_with_a_reward_trained_on_it(tmp_path: Path) -> None:
    denoiser = load_denoiser(ModelSettings(model="scenes"))
    latent_start(denoiser, seed=0).save(tmp_path / "latent")
    reward = str(tmp_path / "latent")
    config = resolve_config("lpo", merge(small(tmp_path), {"reward": reward, "evaluation": {"rewards": [reward]}}))
    train(config, tmp_path / "run", accelerator=cpu_accelerator(config), progress=False)
    lines = metrics(tmp_path / "run")
    assert [line["step"] for line in lines if line["kind"] == "train"] == [1, 2]
    assert all(math.isfinite(line[f"reward/{reward}"]) for line in lines if line["kind"] == "evaluation")


class TestFlowModels:
    """DiNa-LRM on a tiny Stable Diffusion 3.5 of the same latents."""

    def settings(self, folder: Path, method: str, dina: Path, **changes: Any) -> RunConfig:
        keys = {"model": str(dina / "base"), "max_sequence_length": 16, "reward": f"dina-lrm@{dina}", "batch_size": 3}
        return settings(folder, method, **merge(keys, changes))

    @pytest.mark.parametrize("method", ["lpo", "spo"])
    def test_steps_are_ranked_at_their_own_levels_and_nothing_is_decoded(
        self, dina: Path, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = self.settings(tmp_path, method, dina)
        monkeypatch.setattr(PipelinePolicy, "decode", lambda *args, **more: pytest.fail("something was decoded"))
        levels: list[float] = []
        scored = DinaRewardModel.scores

        def told(self: DinaRewardModel, latents: torch.Tensor, timestep: torch.Tensor, *more: Any) -> torch.Tensor:
            levels.extend(set(timestep.tolist()))
            return scored(self, latents, timestep, *more)

        monkeypatch.setattr(DinaRewardModel, "scores", told)
        policy = build_policy(config)
        source = source_of(config, policy=policy)
        batch = source.next_batch()
        assert len(batch.chosen) == 3
        assert source.metrics()["pairs_kept"] > 0
        _, following = policy.process.timesteps(config.sampling.num_inference_steps)
        assert set(levels) <= {level for level in following.tolist() if level > 0}

    def test_finished_images_are_encoded(self, dina: Path, tmp_path: Path) -> None:
        config = self.settings(tmp_path, "d3po", dina, batch_size=2)
        assert len(source_of(config).next_batch().chosen) == 2

    @pytest.mark.parametrize(
        ("changes", "named"),
        [
            ({"scaling_factor": 0.3611}, "0.3611"),
            ({"shift_factor": 0.1159}, "0.1159"),
            ({"shift_factor": None}, "shift_factor"),
        ],
        ids=str,
    )
    def test_another_autoencoder(
        self, dina: Path, tmp_path: Path, changes: dict[str, float | None], named: str
    ) -> None:
        policy = build_policy(self.settings(tmp_path, "lpo", dina))
        latent = build_reward(f"dina-lrm@{dina}").latent
        assert latent is not None
        assert latent.misfit(policy) is None
        policy.pipeline.vae.register_to_config(**changes)
        assert named in str(latent.misfit(policy))

    @pytest.mark.parametrize(("model", "named"), [("sd15", "DiffusionProcess"), ("scenes", "8 x 8 x 8")])
    def test_another_model(self, dina: Path, tmp_path: Path, model: str, named: str) -> None:
        place = model_folder(model) if model == "sd15" else model
        config = settings(tmp_path, "lpo", model=place, reward=f"dina-lrm@{dina}")
        policy = build_policy(config)
        if model == "sd15":
            policy.pipeline.vae.register_to_config(scaling_factor=1.5, shift_factor=0.1)
        with pytest.raises(ConfigError, match=f"dina-lrm.*{named}") as caught:
            source_of(config, policy=policy)
        assert "\n" not in str(caught.value)

    def test_latents_that_are_too_large(self, dina: Path, tmp_path: Path) -> None:
        policy = build_policy(self.settings(tmp_path, "lpo", dina))
        policy.latent_shape = (4, 8, 40)
        latent = build_reward(f"dina-lrm@{dina}").latent
        assert latent is not None
        assert "8 x 40" in str(latent.misfit(policy))
