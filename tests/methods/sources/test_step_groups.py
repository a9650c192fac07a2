from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from seedpo.core.advantages import group_advantages
from seedpo.core.flow import FlowProcess
from seedpo.core.sampling import Sampler, Sampling
from seedpo.errors import ConfigError, SeedpoError
from seedpo.methods.settings import GroupConfig, SamplingConfig, StepGroupConfig
from seedpo.methods.sources.embeddings import PromptEmbeddings
from seedpo.methods.sources.rollouts import RolloutSource
from seedpo.methods.sources.step_groups import JudgedSteps, StepGroupRollout, build_source, step_groups
from seedpo.methods.sources.supplies import Supplies
from seedpo.settings import build_config
from seedpo.training.settings import RunConfig
from tests.methods.sources.toys import PROMPTS, ToyDenoiser, schedule, seeded

COUNT = 3
STEPS = 5


@dataclass
class ByColour:
    """Scores an image by its mean, and keeps what it was asked."""

    asked: list[tuple[Tensor, list[str]]] = field(default_factory=list)

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        self.asked.append((images, list(prompts)))
        return images.mean((1, 2, 3))


def rollout(
    policy: ToyDenoiser | None = None, judge: Any = None, *, groups: dict[str, Any] | None = None, **config: Any
) -> StepGroupRollout:
    return StepGroupRollout(
        policy or ToyDenoiser(),
        judge or ByColour(),
        sampling=SamplingConfig(num_inference_steps=STEPS, guidance_scale=1.0),
        groups=GroupConfig(images_per_prompt=COUNT, **(groups or {})),
        config=StepGroupConfig(**config),
    )


def drawn(made: StepGroupRollout, prompts: Sequence[str] = PROMPTS[:2], seed: int = 0) -> JudgedSteps:
    steps, _ = made(prompts, generator=seeded(seed), number=0)
    assert steps is not None
    return steps


class TestSteps:
    def test_every_image_has_every_step_with_a_density(self) -> None:
        steps = drawn(rollout())
        assert len(steps.start) == 2 * STEPS * COUNT == steps.units()
        assert steps.prompts == PROMPTS[:2]
        assert steps.prompt.tolist() == [0] * 15 + [1] * 15
        assert len(drawn(rollout(ToyDenoiser(process=schedule(last_step_has_density=False)))).start) == 2 * 4 * COUNT

    def test_steps_follow_each_other(self) -> None:
        """Each image's steps are a chain; latents are stored once."""
        steps = drawn(rollout())
        start, end = (values.view(2, STEPS, COUNT) for values in (steps.start, steps.end))
        assert torch.equal(start[:, 1:], end[:, :-1])
        assert len(steps.latents) == 2 * (STEPS + 1) * COUNT
        assert steps.timestep.view(2, STEPS, COUNT)[0, :, 0].tolist() == sorted(set(steps.timestep.tolist()))[::-1]

    def test_advantages_are_those_of_the_final_images(self) -> None:
        judge = ByColour()
        steps = drawn(rollout(judge=judge))
        ((images, prompts),) = judge.asked
        assert prompts == [prompt for prompt in PROMPTS[:2] for _ in range(COUNT)]
        assert torch.equal(images, torch.sigmoid(steps.latents[steps.end.view(2, STEPS, COUNT)[:, -1].flatten()]))
        expected = group_advantages(images.mean((1, 2, 3)).view(2, COUNT), normalise="std")
        assert torch.equal(steps.advantage.view(2, STEPS, COUNT), expected[:, None].expand(2, STEPS, COUNT))

    @pytest.mark.parametrize("share", [False, True])
    def test_log_probabilities_are_those_of_drawing(self, share: bool) -> None:
        """So the policy's ratio to itself is exactly 1."""
        policy = ToyDenoiser()
        steps = drawn(rollout(policy, groups={"shared_noise": share}))
        batch = step_groups(steps, PromptEmbeddings(policy), share=share)
        sampling = Sampling(num_inference_steps=STEPS, guidance_scale=1.0, eta=1.0)
        assert torch.equal(Sampler(policy, sampling).log_probs(batch), batch.rollout_log_prob)

    def test_units_are_steps_or_steps_of_groups(self) -> None:
        steps = drawn(rollout(update_per="group"))
        assert steps.units() == 2 * STEPS
        third = steps.take(torch.tensor([7]))
        assert len(third.start) == COUNT
        assert len(set(third.timestep.tolist())) == 1
        assert third.advantage.tolist() == steps.advantage.view(10, COUNT)[7].tolist()
        assert third.prompts == PROMPTS[1:2]


class TestNoise:
    def test_images_start_apart_or_together(self) -> None:
        for shared, different in ((False, 2 * COUNT), (True, 2)):
            steps = drawn(rollout(groups={"shared_noise": shared}))
            first = steps.latents[steps.start.view(2, STEPS, COUNT)[:, 0].flatten()]
            assert len(torch.unique(first.flatten(1), dim=0)) == different
            last = steps.latents[steps.end.view(2, STEPS, COUNT)[:, -1].flatten()]
            assert len(torch.unique(last.flatten(1), dim=0)) == 2 * COUNT

    def test_images_are_one_row_until_they_part(self) -> None:
        policy = ToyDenoiser()
        drawn(rollout(policy, groups={"shared_noise": True}, trained_steps=1, window="random", window_range=1))
        rows = [len(latents) for latents, _ in policy.asked]
        assert rows == [2] + [2 * COUNT] * (STEPS - 1)
        policy = ToyDenoiser()
        drawn(rollout(policy, trained_steps=1))
        assert [len(latents) for latents, _ in policy.asked] == [2 * COUNT] * STEPS

    def test_a_shared_x_t_runs_once_in_the_loss_of_a_group(self) -> None:
        policy = ToyDenoiser()
        steps = drawn(rollout(policy, groups={"shared_noise": True}, trained_steps=2, update_per="group"))
        first, second = (
            step_groups(steps.take(torch.tensor([unit])), PromptEmbeddings(policy), share=True) for unit in (0, 1)
        )
        assert (len(first), len(first.latents)) == (COUNT, 1)
        assert (len(second), len(second.latents)) == (COUNT, COUNT)


class TestWindow:
    @pytest.mark.parametrize("length", [1, 2, 4])
    def test_the_first_steps(self, length: int) -> None:
        steps = drawn(rollout(trained_steps=length))
        timesteps, _ = schedule().timesteps(STEPS)
        assert sorted(set(steps.timestep.tolist())) == sorted(timesteps[:length].tolist())

    def test_other_steps_are_deterministic(self) -> None:
        """From the end of the window an image is the ODE's."""
        policy = ToyDenoiser()
        judge = ByColour()
        steps = drawn(rollout(policy, judge, trained_steps=2))
        end = steps.latents[steps.end.view(2, 2, COUNT)[:, -1].flatten()]
        timesteps, following = schedule().timesteps(STEPS)
        prompts = policy.encode_prompts([prompt for prompt in PROMPTS[:2] for _ in range(COUNT)])
        for now, then in zip(timesteps[2:], following[2:], strict=True):
            times = [time.expand(len(end)) for time in (now, then)]
            prediction = policy.predict(end, times[0], prompts)
            end = policy.process.step(prediction, end, *times, eta=0.0).mean
        assert torch.equal(torch.sigmoid(end), judge.asked[0][0])

    def test_a_random_window_lies_in_the_first_half(self) -> None:
        made = rollout(trained_steps=1, window="random")
        timesteps, _ = schedule().timesteps(STEPS)
        times = {drawn(made, seed=seed).timestep[0].item() for seed in range(20)}
        assert times == set(timesteps[: STEPS // 2].tolist())

    def test_a_random_window_reaches_as_far_as_is_asked(self) -> None:
        made = rollout(trained_steps=2, window="random", window_range=4)
        timesteps, _ = schedule().timesteps(STEPS)
        windows = {tuple(sorted(set(drawn(made, seed=seed).timestep.tolist()))) for seed in range(30)}
        assert windows == {tuple(sorted(timesteps[begin : begin + 2].tolist())) for begin in range(3)}

    def test_more_steps_than_there_are(self) -> None:
        with pytest.raises(ConfigError, match="trained_steps"):
            rollout(trained_steps=6)

    @pytest.mark.parametrize("rule", ["dance", "flow-grpo", "cps"])
    def test_flow_models(self, rule: str) -> None:
        """The step to the clean image has no density under any rule."""
        policy: Any = ToyDenoiser()
        policy.process = FlowProcess(levels=lambda count: torch.linspace(1, 0, count + 1), sde=rule)
        steps = drawn(rollout(policy))
        assert len(steps.start) == 2 * (STEPS - 1) * COUNT
        assert steps.log_prob.isfinite().all()
        batch = step_groups(steps, PromptEmbeddings(policy), share=False)
        sampling = Sampling(num_inference_steps=STEPS, guidance_scale=1.0, eta=None)
        assert torch.equal(Sampler(policy, sampling).log_probs(batch), batch.rollout_log_prob)


class TestGroups:
    @dataclass
    class Ties:
        """Prefers later images of the second prompt, and none of the first."""

        def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
            return torch.tensor([float(index) if prompt == "two" else 0.5 for index, prompt in enumerate(prompts)])

    def test_groups_without_a_difference_are_dropped(self) -> None:
        made = rollout(judge=self.Ties())
        steps, observed = made(PROMPTS[:2], generator=seeded(), number=0)
        assert steps is not None
        assert steps.prompts == ("two",)
        assert len(steps.start) == STEPS * COUNT
        assert len(steps.latents) == (STEPS + 1) * COUNT
        assert observed["groups_kept"] == 0.5

    def test_no_group_is_left(self) -> None:
        steps, observed = rollout(judge=self.Ties())(("one", "three"), generator=seeded(), number=0)
        assert steps is None
        assert observed["groups_kept"] == 0.0

    def test_people_compare(self) -> None:
        class People:
            def compare(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
                order = torch.tensor([[0.0, 1.0, 1.0], [-1.0, 0.0, 1.0], [-1.0, -1.0, 0.0]])
                return order.expand(2, COUNT, COUNT)

        steps = drawn(rollout(judge=People()))
        assert (steps.advantage.view(2, STEPS, COUNT).diff(dim=2) < 0).all()


class TestSource:
    def source(self, **keys: Any) -> RolloutSource[Any, Any]:
        config = build_config(
            RunConfig,
            {
                "method": "flow-grpo",
                "batch_size": 4,
                "sampling": {"num_inference_steps": STEPS, "guidance_scale": 1.0},
                "groups": {"images_per_prompt": COUNT, "prompts_per_rollout": 2, "updates_per_rollout": 2},
                "step_groups": {"trained_steps": 2, "window": "random", "window_range": 4},
            },
            keys,
        )
        policy: Any = ToyDenoiser()
        return build_source(config, Supplies(policy=policy, prompts=lambda: PROMPTS, judge=ByColour))

    def test_every_step_is_handed_out_as_often_as_asked(self) -> None:
        source = self.source()
        batches = [source.next_batch() for _ in range(6)]
        assert {len(batch) for batch in batches} == {4}
        keys = [tuple(row) for batch in batches for row in batch.next_latents.flatten(1).tolist()]
        assert sorted(keys.count(key) for key in set(keys)) == [2] * 12

    def test_goes_on_where_it_stopped(self) -> None:
        source, other = self.source(), self.source()
        for _ in range(4):
            source.next_batch()
        other.restore(source.state())
        for _ in range(5):
            batch, again = source.next_batch(), other.next_batch()
            for name, value in batch.tensors().items():
                assert torch.equal(value, getattr(again, name)), name
        assert source.metrics() == other.metrics()

    def test_gives_up_when_all_images_are_alike(self) -> None:
        config = build_config(RunConfig, {"method": "flow-grpo", "sampling": {"num_inference_steps": 2}})
        policy: Any = ToyDenoiser()
        judge = lambda: lambda images, prompts: torch.zeros(len(images))  # noqa: E731
        source = build_source(config, Supplies(policy=policy, prompts=lambda: PROMPTS, judge=judge))
        with pytest.raises(SeedpoError):
            source.next_batch()
