"""Roll-outs that are drawn part by part, while a reward that is computed elsewhere judges what was drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from seedpo.methods.settings import GroupConfig, SamplingConfig, StepGroupConfig, TrajectoryConfig
from seedpo.methods.sources.judging import draw_and_judge
from seedpo.methods.sources.online import ImageRollout
from seedpo.methods.sources.step_groups import StepGroupRollout
from seedpo.methods.sources.trajectories import TrajectoryRollout
from tests.methods.sources.toys import PROMPTS, ToyPolicy, brightness, seeded

COUNT = 3


@dataclass
class Elsewhere:
    """Answers when it is waited for, and writes down what happens in which order."""

    events: list[str] = field(default_factory=list)
    images: list[Tensor] = field(default_factory=list)
    fail: int | None = None

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return self.later(images, prompts)()

    def later(self, images: Tensor, prompts: Sequence[str]) -> Callable[[], Tensor]:
        number = len(self.images)
        self.images.append(images)
        self.events.append(f"asked {number}")
        assert len(images) == len(prompts)

        def wait() -> Tensor:
            self.events.append(f"waited {number}")
            if number == self.fail:
                raise RuntimeError("the server died")
            return brightness(images, prompts)

        return wait


def built(kind: str, reward: Any, policy: ToyPolicy | None = None, at_once: int | None = None) -> Any:
    policy = policy or ToyPolicy()
    eta = None if kind == "online" else 1.0
    sampling = SamplingConfig(num_inference_steps=4, guidance_scale=2.0, eta=eta, prompts_at_once=at_once)
    if kind == "online":
        config = GroupConfig(images_per_prompt=COUNT)
        return ImageRollout(policy, reward, sampling=sampling, config=config, packing="groups")
    if kind == "trajectories":
        return TrajectoryRollout(policy, reward, sampling=sampling, config=TrajectoryConfig(images_per_prompt=COUNT))
    groups = GroupConfig(images_per_prompt=COUNT)
    return StepGroupRollout(policy, reward, sampling=sampling, groups=groups, config=StepGroupConfig())


KINDS = pytest.mark.parametrize("kind", ["online", "trajectories", "step groups"])


def rolled(made: Any, prompts: Sequence[str] = PROMPTS[:5], seed: int = 0) -> Any:
    drawn, observed = made(prompts, generator=seeded(seed), number=0)
    assert drawn is not None
    return drawn, observed


def same(one: Any, other: Any) -> None:
    assert one.prompts == other.prompts
    for name, value in vars(one).items():
        if isinstance(value, Tensor):
            assert torch.equal(value, getattr(other, name)), name


@KINDS
@pytest.mark.parametrize("at_once", [None, 1, 2, 5, 9])
def test_who_judges_where_changes_no_number(kind: str, at_once: int | None) -> None:
    here, there = (rolled(built(kind, reward, at_once=at_once)) for reward in (brightness, Elsewhere()))
    same(here[0], there[0])
    assert here[1] == there[1]


@KINDS
def test_every_part_is_asked_about_before_the_first_is_waited_for(kind: str) -> None:
    reward = Elsewhere()
    rolled(built(kind, reward, at_once=2))
    assert reward.events == ["asked 0", "asked 1", "asked 2", "waited 0", "waited 1", "waited 2"]
    assert [len(images) for images in reward.images] == [2 * COUNT, 2 * COUNT, COUNT]


def test_images_drawn_without_noise_in_their_steps_are_the_same_in_parts() -> None:
    whole, parts = (rolled(built("online", brightness, at_once=size))[0] for size in (None, 2))
    torch.testing.assert_close(whole.latents, parts.latents)
    assert torch.equal(whole.prior_noise, parts.prior_noise)


@pytest.mark.parametrize("kind", ["trajectories", "step groups"])
def test_parts_of_random_steps_are_joined_without_mixing_rows(kind: str) -> None:
    """Every step of a part leads from an x_t of it to one, as the policy's own step does, for its own prompt."""
    policy = ToyPolicy()
    drawn, _ = rolled(built(kind, brightness, policy, at_once=2))
    whole, _ = rolled(built(kind, brightness, policy))
    for name in ("start", "end", "timestep", "next_timestep", "prompt"):
        assert getattr(drawn, name).shape == getattr(whole, name).shape
    conditioning = policy.encode_prompts([drawn.prompts[row] for row in drawn.prompt.tolist()])
    negative = policy.encode_prompts([""] * len(drawn.prompt))
    x_t = drawn.latents[drawn.start]
    noisy = [policy.predict(x_t, drawn.timestep, rows) for rows in (negative, conditioning)]
    step = policy.process.step(policy.process.guided(*noisy, 2.0), x_t, drawn.timestep, drawn.next_timestep, eta=1.0)
    deviations = (drawn.latents[drawn.end] - step.mean).flatten(1) / step.std.view(-1, 1)
    assert deviations.abs().max() < 6
    assert deviations.std() == pytest.approx(1, abs=0.2)


@KINDS
def test_fewer_at_once_are_fewer_rows_of_the_network(kind: str) -> None:
    policy = ToyPolicy()
    built(kind, brightness, policy, at_once=2)(PROMPTS[:5], generator=seeded(), number=0)
    assert max(len(rows) for rows, _ in policy.asked + policy.asked_reference) <= 2 * 2 * COUNT


@KINDS
def test_a_judge_that_fails_ends_the_roll_out(kind: str) -> None:
    with pytest.raises(RuntimeError, match="the server died"):
        built(kind, Elsewhere(fail=1), at_once=2)(PROMPTS[:5], generator=seeded(), number=0)


def test_people_are_asked_about_all_images_together() -> None:
    @dataclass
    class People:
        asked: list[int] = field(default_factory=list)

        def compare(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
            self.asked.append(len(images))
            scores = brightness(images, prompts).view(-1, COUNT)
            return torch.tanh(scores[:, :, None] - scores[:, None, :])

    people = People()
    judged = draw_and_judge(
        people,
        lambda some: (some, torch.rand(len(PROMPTS[:5][some]) * COUNT, 3, 2, 2, generator=seeded(some.start))),
        PROMPTS[:5],
        count=COUNT,
        at_once=2,
    )
    assert people.asked == [5 * COUNT]
    assert [part.start for part in judged.parts] == [0, 2, 4]
    assert judged.judgement.scores.shape == (5, COUNT)
