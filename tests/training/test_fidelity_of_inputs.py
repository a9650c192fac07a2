"""The switches of `fidelity` that change what is trained on: latents, previews, the last step, pairs without a winner.

Each is compared with the published formula, written out here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor
from torch.nn.functional import interpolate

from seedpo.cli.cache_builds import build_cache
from seedpo.core.processes import DiffusionProcess
from seedpo.core.sampling import Sampler, Sampling
from seedpo.data.cache.pairs import encode_pair
from seedpo.errors import ConfigError, DataError
from seedpo.methods.settings import SamplingConfig, TrajectoryConfig
from seedpo.methods.sources.trajectories import trajectory_source
from seedpo.methods.transition_dpo import TransitionDPO
from seedpo.models.pipelines.stable_diffusion import diffusion_process
from seedpo.models.policy import PipelinePolicy, build_policy
from seedpo.protocols import LabelledPair
from seedpo.rewards.preprocessing import CLIP_MEAN, CLIP_STD
from seedpo.rewards.step_aware_clip import normalise
from seedpo.settings import build_config
from seedpo.training.caches import open_caches
from seedpo.training.configuration import resolve_config
from seedpo.training.optimizer_settings import OptimizerConfig
from seedpo.training.optimizers import build_optimizer
from seedpo.training.run import build_pairs, build_source, process_of
from seedpo.training.settings import RunConfig
from tests.methods.flow import flow_process
from tests.methods.sources.toys import PROMPTS, ToyDenoiser, brightness
from tests.small_runs import small
from tests.toy_denoiser import ToyDenoiser as ToyEncoder

SAMPLED = {"fidelity": {"sampled_latents": True}}


def pairs_config(folder: Path, **changes: Any) -> RunConfig:
    return build_config(RunConfig, small(folder), {"method": "diffusion-dpo", "batch_size": 4}, changes)


@pytest.fixture(scope="module")
def policy() -> PipelinePolicy:
    return build_policy(build_config(RunConfig, {}))


class TestSampledLatents:
    """Official Diffusion-DPO: latents = vae.encode(pixels).latent_dist.sample() * scaling_factor, at every visit."""

    def noises(self, config: RunConfig, policy: PipelinePolicy, batches: int) -> dict[tuple[int, int], Tensor]:
        """By pair and visit, how far the latents of both images are from the mean, in standard deviations."""
        vae, source, images = policy.pipeline.vae, build_source(config, policy), build_pairs(config)
        drawn = {}
        for _ in range(batches):
            batch = source.next_batch()
            for index, (row, visit) in enumerate(zip(batch.pair.tolist(), batch.visit.tolist(), strict=True)):
                pixels = torch.stack([images[row].chosen, images[row].rejected]) * 2 - 1
                with torch.no_grad():
                    distribution = vae.encode(pixels).latent_dist
                latents = torch.stack([batch.chosen_latents[index], batch.rejected_latents[index]])
                latents = latents / vae.config.scaling_factor
                drawn[row, visit] = (latents - distribution.mean) / distribution.std
        return drawn

    def test_are_the_autoencoder_s_distribution_anew_at_every_visit(
        self, tmp_path: Path, policy: PipelinePolicy
    ) -> None:
        noises = self.noises(pairs_config(tmp_path, **SAMPLED), policy, batches=6)
        values = torch.stack(list(noises.values()))
        count = values.numel()
        assert abs(float(values.mean())) < 5 / math.sqrt(count)
        assert abs(float(values.square().mean()) - 1) < 5 * math.sqrt(2 / count) + 0.02
        again = [(row, visit) for row, visit in noises if visit == 1]
        assert again, "some pairs come twice"
        for row, visit in again:
            first, second = noises[row, 0], noises[row, visit]
            assert abs(float((first * second).mean())) < 5 / math.sqrt(first.numel()), "independent of the first visit"
            assert abs(float((first[0] * first[1]).mean())) < 5 / math.sqrt(first[0].numel()), "and of the other image"

    def test_off_they_are_the_mean(self, tmp_path: Path, policy: PipelinePolicy) -> None:
        noises = self.noises(pairs_config(tmp_path), policy, batches=1)
        assert float(torch.stack(list(noises.values())).abs().max()) < 1e-2

    def test_follow_from_pair_and_visit_alone(self, tmp_path: Path, policy: PipelinePolicy) -> None:
        """Another batch size, a resumed source and independent mirroring: the same draws."""
        config = pairs_config(tmp_path, **SAMPLED)
        whole = build_source(config, policy)
        batches = [whole.next_batch() for _ in range(3)]
        first = build_source(config, policy)
        first.next_batch()
        second = build_source(config, policy)
        second.restore(first.state())
        for batch in batches[1:]:
            resumed = second.next_batch()
            assert torch.equal(batch.chosen_latents, resumed.chosen_latents)
            assert torch.equal(batch.rejected_latents, resumed.rejected_latents)
        smaller = build_source(pairs_config(tmp_path, **SAMPLED, batch_size=2), policy)
        halves = [smaller.next_batch() for _ in range(2)]
        joined = torch.cat([half.chosen_latents for half in halves])
        torch.testing.assert_close(joined, batches[0].chosen_latents, rtol=1e-5, atol=1e-5)

    def test_a_cache_holds_mean_and_width(self, tmp_path: Path, policy: PipelinePolicy) -> None:
        live = build_source(pairs_config(tmp_path, **SAMPLED), policy).next_batch()
        config = pairs_config(tmp_path, cache={"folder": str(tmp_path / "cache")}, **SAMPLED)
        build_cache(config, progress=False)
        plain = pairs_config(tmp_path, cache={"folder": str(tmp_path / "cache")})
        assert open_caches(plain, policy).latents is None, "means alone are another set"
        caches = open_caches(config, policy)
        assert caches.latents is not None
        cached = build_source(config, policy, caches=caches).next_batch()
        assert torch.equal(live.chosen_latents, cached.chosen_latents)
        assert torch.equal(live.rejected_latents, cached.rejected_latents)


class TestPreviews:
    """SPO: resize the decoder's output, then clamp."""

    def test_the_decoder_s_output_reaches_the_scorer(
        self, tmp_path: Path, policy: PipelinePolicy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        decode = policy.pipeline.vae.decode
        monkeypatch.setattr(
            policy.pipeline.vae, "decode", lambda *given, **options: (4 * decode(*given, **options)[0],)
        )
        seen: dict[bool, Tensor] = {}
        for late in (False, True):
            images: list[Tensor] = []

            class Scorer:
                def __call__(self, given: Tensor, prompts: Sequence[str], *, timestep: Tensor | None = None) -> Tensor:
                    images.append(given)  # noqa: B023
                    return given.mean((1, 2, 3))

            config = build_config(
                RunConfig, small(tmp_path), {"method": "spo", "fidelity": {"previews_clamped_late": late}}
            )
            source = build_source(config, policy)
            source.rollout.reward = Scorer()
            source.rollout([*PROMPTS[:2]], generator=torch.Generator().manual_seed(0), number=0)
            seen[late] = images[0]
        assert float(seen[True].min()) < 0.0
        assert torch.equal(seen[True].clamp(0.0, 1.0), seen[False])

    def test_resizing_before_and_after_the_clamp_differ(self) -> None:
        raw = torch.randn(2, 3, 20, 20, generator=torch.Generator().manual_seed(1)) / 2 + 0.5

        def published(images: Tensor) -> Tensor:
            resized = interpolate(images, size=(14, 14), mode="bicubic", align_corners=False).clamp(0, 1)
            mean, std = (torch.tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
            return (resized - mean) / std

        torch.testing.assert_close(normalise(raw, 14), published(raw), rtol=0, atol=1e-6)
        assert float((normalise(raw.clamp(0, 1), 14) - published(raw)).abs().max()) > 0.1

    def test_a_reward_of_finished_images_is_refused(self, tmp_path: Path, policy: PipelinePolicy) -> None:
        config = resolve_config(
            "spo",
            small(tmp_path, reward="jpeg-compressibility", fidelity={"previews_clamped_late": True}),
            bfloat16=False,
        )
        with pytest.raises(ConfigError, match=r"fidelity\.previews_clamped_late: jpeg-compressibility"):
            build_source(config, policy)
        with pytest.raises(
            ConfigError, match=r"fidelity\.previews_clamped_late: http://a/b is on a server, and images"
        ):
            resolve_config("spo", small(tmp_path, reward="http://a/b", fidelity={"previews_clamped_late": True}))


class TestLastStep:
    """D3PO's and SPO's ddim_step_with_logprob: prev_timestep = clamp(timestep - T // N, 0, T - 1)."""

    COUNT = 20

    @pytest.mark.parametrize("spacing", ["leading", "trailing"])
    def test_is_the_published_step(self, spacing: str) -> None:
        scheduler = DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            set_alpha_to_one=True,
            steps_offset=1,
            timestep_spacing=spacing,
        )
        process = diffusion_process(scheduler)
        config = build_config(RunConfig, {"method": "d3po", "fidelity": {"last_step_clamped": True}})
        clamped = process_of(config, SimpleNamespace(process=process))  # type: ignore[arg-type]
        timesteps, following = clamped.timesteps(self.COUNT)
        alphas = scheduler.alphas_cumprod.double()
        before = alphas[timesteps]
        after = alphas[(timesteps - 1000 // self.COUNT).clamp(0, 999)]
        expected = ((1 - after) / (1 - before) * (1 - before / after)).sqrt()
        found = clamped.step_std(timesteps, following, eta=1.0)
        torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-6)
        assert float(found[-1]) > 0.01
        plain = process.step_std(timesteps, following, eta=1.0)
        assert float(plain[-1]) == 0.0
        assert torch.equal(plain[:-1], found[:-1])

    def test_the_step_is_trained_on(self) -> None:
        alphas = torch.linspace(0.99, 0.01, 100)
        config = build_config(RunConfig, {"method": "d3po", "fidelity": {"last_step_clamped": True}})
        for settings, steps in ((config, 5), (build_config(RunConfig, {"method": "d3po"}), 4)):
            process = DiffusionProcess(alphas_cumprod=alphas, steps_offset=1)
            model = ToyDenoiser(process_of(settings, SimpleNamespace(process=process)))  # type: ignore[arg-type]
            sampler = Sampler(model, Sampling(num_inference_steps=5, guidance_scale=1.0, eta=1.0))
            assert int(sampler.has_density.sum()) == steps

    def test_a_process_without_such_a_level_is_refused(self) -> None:
        config = build_config(RunConfig, {"method": "d3po", "fidelity": {"last_step_clamped": True}})
        with pytest.raises(ConfigError, match=r"fidelity\.last_step_clamped: FlowProcess"):
            process_of(config, SimpleNamespace(process=flow_process()))  # type: ignore[arg-type]


class TestEmptyUpdates:
    """D3PO: human_prefer = (0, 0) for equal rewards, which multiplies both log-ratios of the pair."""

    def batches(self, *, empty: bool) -> Any:
        def reward(images: Tensor, prompts: Sequence[str]) -> Tensor:
            """Equal for all images of the first prompt."""
            return torch.where(
                torch.tensor([prompt == PROMPTS[0] for prompt in prompts]), 1.0, brightness(images, prompts)
            )

        model = ToyDenoiser()
        return trajectory_source(
            model,
            reward,  # type: ignore[arg-type]
            PROMPTS[:2],
            sampling=SamplingConfig(num_inference_steps=5, guidance_scale=2.0),
            config=TrajectoryConfig(images_per_prompt=2, prompts_per_rollout=2),
            batch_size=1,
            seed=0,
            empty_pairs=empty,
        )

    def test_a_pair_without_a_winner_takes_its_place(self) -> None:
        with_them, without = self.batches(empty=True), self.batches(empty=False)
        first = [with_them.next_batch() for _ in range(10)]
        assert sorted(float(batch.weight) for batch in first) == [0.0] * 5 + [1.0] * 5
        assert with_them.metrics()["pairs_kept"] == 1.0
        assert without.next_batch().weight is None
        assert without.metrics()["pairs_kept"] == 0.5

    def test_waiting_pairs_are_resumed(self) -> None:
        whole, other = self.batches(empty=True), self.batches(empty=True)
        for _ in range(4):
            whole.next_batch()
        other.restore(whole.state())
        weights = [[float(source.next_batch().weight) for _ in range(6)] for source in (whole, other)]
        assert weights[0] == weights[1]

    def test_it_has_no_gradient_and_adamw_moves_all_the_same(self) -> None:
        class Trained(ToyDenoiser):
            scale = torch.nn.Parameter(torch.tensor(1.1))

            def predict(self, latents: Tensor, timestep: Tensor, conditioning: Any) -> Tensor:
                return self.scale * super().predict(latents, timestep, conditioning)

            def reference(self) -> torch.no_grad:
                return torch.no_grad()

        model, source = Trained(), self.batches(empty=True)
        method = TransitionDPO(
            policy_weight=0.2, reference_weight=0.1, sampling=SamplingConfig(num_inference_steps=5), clip_range=0.1
        )
        batches = {float(batch.weight): batch for batch in (source.next_batch() for _ in range(10))}
        optimizer = build_optimizer({"scale": model.scale}, learning_rate=0.1, config=OptimizerConfig())
        for weight in (1.0, 0.0):
            before = model.scale.item()
            optimizer.zero_grad(set_to_none=False)
            output = method.loss(model, batches[weight], generator=torch.Generator())
            output.losses.sum().backward()
            if weight == 0.0:
                assert output.losses.tolist() == pytest.approx([math.log(2)])
            assert (model.scale.grad.item() == 0.0) == (weight == 0.0)
            optimizer.step()
            assert model.scale.item() != before


def test_a_model_without_a_distribution_is_refused() -> None:
    image = torch.zeros(3, 32, 32)
    pair = LabelledPair(prompt="", chosen=image, rejected=image, original_size=(32, 32))
    with pytest.raises(DataError, match=r"fidelity\.sampled_latents"):
        encode_pair(pair, ToyEncoder(), mirrored=False, spread=True)
