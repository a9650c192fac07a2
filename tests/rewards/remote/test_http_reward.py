from __future__ import annotations

import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from seedpo.errors import DataError, RewardServerError
from seedpo.rewards.named import build_reward, forget, server_versions
from seedpo.rewards.remote.http_reward import HttpReward
from seedpo.rewards.remote.images import image_hash, png_bytes
from seedpo.rewards.remote.transport import Transport
from seedpo.rewards.settings import HttpSettings, RewardDefinition
from tests.rewards.remote.stand_in import Answer, StandIn, as_json, offers, scored, served

PROMPTS = [f"prompt {number}" for number in range(7)]


def mean_of(file: bytes, prompt: str) -> float:
    """A score that depends on every pixel and on the prompt."""
    return float(np.asarray(Image.open(io.BytesIO(file)), dtype=np.float64).mean()) + len(prompt) / 8.0


def honest(_method: str, path: str, body: Any) -> Answer:
    return offers() if path == "/rewards" else as_json(scored(body, mean_of))


def liar(change: Callable[[dict[str, Any]], Any]) -> Callable[[str, str, Any], Answer]:
    """A server that changes its honest answers."""

    def answer(_method: str, path: str, body: Any) -> Answer:
        return offers() if path == "/rewards" else as_json(change(scored(body, mean_of)))

    return answer


def reward_at(server: StandIn, **settings: Any) -> HttpReward:
    chosen = HttpSettings(url=server.url, reward="size", **{"batch_size": 3, "retries": 0, **settings})
    return HttpReward("far", chosen, Transport("far", chosen, first_wait=0.01))


@pytest.fixture
def images() -> Tensor:
    return torch.rand((7, 3, 6, 10), generator=torch.Generator().manual_seed(0))


def expected(images: Tensor) -> Tensor:
    pixels = (images.double() * 255.0).round()
    return torch.stack([image.mean() + len(p) / 8.0 for image, p in zip(pixels, PROMPTS, strict=True)]).float()


class TestScores:
    def test_they_come_in_order_from_requests_of_the_size_that_is_set(self, images: Tensor) -> None:
        with served(honest) as server:
            reward = reward_at(server)
            assert torch.equal(reward(images, PROMPTS), expected(images))
        assert sorted(len(body["images"]) for body in server.posts()) == [1, 3, 3]
        assert all(set(body) == {"reward", "images", "prompts"} for body in server.posts())
        assert (reward.version, reward.step_aware) == ("v1", False)

    def test_images_of_many_sizes_and_kinds(self, images: Tensor) -> None:
        generator = np.random.default_rng(0)
        sizes = [(5, 9), (4, 4), (5, 9), (64, 33)]
        pictures = [Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]
        pictures.append(pictures[0].convert("L"))
        with served(honest) as server:
            scores = reward_at(server)(pictures, PROMPTS[:5])
        means = [np.asarray(picture.convert("RGB"), dtype=np.float64).mean() + 1.0 for picture in pictures]
        assert torch.equal(scores, torch.tensor(means, dtype=torch.float32))

    def test_a_server_may_allow_fewer_images(self, images: Tensor) -> None:
        def few(method: str, path: str, body: Any) -> Answer:
            return offers(max_images=2) if path == "/rewards" else honest(method, path, body)

        with served(few) as server:
            assert torch.equal(reward_at(server)(images, PROMPTS), expected(images))
        assert max(len(body["images"]) for body in server.posts()) == 2

    def test_the_same_row_travels_once_so_that_it_has_one_score(self, images: Tensor) -> None:
        with served(honest) as server:
            scores = reward_at(server)(images[[0, 0, 0, 1, 0]], ["a", "a", "b", "a", "a"])
        assert [len(body["images"]) for body in server.posts()] == [3]
        assert scores[0] == scores[1] == scores[4]

    @pytest.mark.parametrize("prompt", ["half \ud800", "NUL \0"])
    def test_a_prompt_that_json_cannot_hold_is_refused_here(self, images: Tensor, prompt: str) -> None:
        with served(honest) as server, pytest.raises(DataError, match=r"prompt 1, '.*', holds .*; remove it"):
            reward_at(server)(images[:2], ["a", prompt])
        assert server.posts() == []

    @pytest.mark.parametrize("prompt", ["", "\u202eleft\u202c", "\U0001f98a \u2028 \n", "x" * 99_999])
    def test_any_other_prompt_travels(self, images: Tensor, prompt: str) -> None:
        with served(honest) as server:
            reward_at(server)(images[:1], [prompt])
        assert server.posts()[0]["prompts"] == [prompt]

    def test_an_error_numbers_images_as_the_caller_does(self, tmp_path: Path, images: Tensor) -> None:
        with served(liar(with_score(None))) as server:
            with pytest.raises(RewardServerError, match=r"the score of image 5, prompt 'prompt 5', is None"):
                reward_at(server, concurrency=1, batch_size=6)(images[:6], PROMPTS[:6])
            cache = str(tmp_path / "scores.db")
            server.answer = honest
            reward_at(server, cache=cache)(images[:4], PROMPTS[:4])
            server.answer = liar(with_score(None))
            with pytest.raises(RewardServerError, match=r"the score of image 4, prompt 'prompt 4', is None"):
                reward_at(server, cache=cache)(images[:5], PROMPTS[:5])

    def test_what_is_no_image_is_refused_here(self, images: Tensor) -> None:
        with served(honest) as server:
            reward = reward_at(server)
            with pytest.raises(DataError, match="7 images but 2 prompts"):
                reward(images, PROMPTS[:2])
            with pytest.raises(DataError, match="image 0 is a str"):
                reward(["x"], PROMPTS[:1])  # type: ignore[list-item]
            assert reward(torch.zeros(0, 3, 4, 4), []).shape == (0,)
        assert server.posts() == []

    def test_time_steps_travel_if_the_reward_takes_them(self, images: Tensor) -> None:
        times = torch.tensor([1, 20, 300, 4, 5, 6, 981])
        for aware, sent in [(True, times.tolist()), (False, None)]:

            def answer(_method: str, path: str, body: Any, aware: bool = aware) -> Answer:
                return offers(step_aware=aware) if path == "/rewards" else as_json(scored(body, mean_of))

            with served(answer) as server:
                definitions = {"far": definition(server, batch_size=7)}
                reward = build_reward("far", definitions=definitions)
                assert reward.step_aware is aware
                reward(images, PROMPTS, timestep=times)
                assert server.posts()[0].get("timesteps") == sent
                forget("far", definitions)


def definition(server: StandIn, **settings: Any) -> RewardDefinition:
    return RewardDefinition.model_validate({"http": {"url": server.url, "reward": "size", "retries": 0, **settings}})


def permuted(answer: dict[str, Any]) -> dict[str, Any]:
    return {**answer, "scores": answer["scores"][::-1]}


def other_prompts(answer: dict[str, Any]) -> dict[str, Any]:
    prompts = [row["prompt"] for row in answer["scores"]]
    return {
        **answer,
        "scores": [{**row, "prompt": p} for row, p in zip(answer["scores"], prompts[::-1], strict=True)],
    }


def with_score(score: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda answer: {**answer, "scores": [*answer["scores"][:-1], {**answer["scores"][-1], "score": score}]}


LIES = [
    (
        permuted,
        r"the score of image 0, prompt 'prompt 0', is that of another row: image '[0-9a-f]{64}' instead of '",
    ),
    (other_prompts, r"another row: prompt 'prompt 2' instead of 'prompt 0'"),
    (lambda answer: {**answer, "scores": answer["scores"][:-1]}, r"returned 2 scores for 3 images"),
    (lambda answer: {**answer, "scores": [*answer["scores"], answer["scores"][0]]}, r"returned 4 scores for 3 images"),
    (
        lambda answer: {**answer, "scores": answer["scores"][:1] * 3},
        r"image 1, prompt 'prompt 1', is that of another row",
    ),
    (
        lambda answer: {**answer, "scores": [row["score"] for row in answer["scores"]]},
        r"image 0, prompt 'prompt 0', is [0-9.]+, not an object",
    ),
    (lambda answer: {**answer, "scores": None}, r"returned no scores for 3 images"),
    (lambda answer: {"scores": answer["scores"]}, r"the reward's version changed from v1 to None"),
    (
        lambda answer: {**answer, "version": "v2"},
        r"the reward's version changed from v1 to 'v2', so that old and new scores cannot be compared; serve the first",
    ),
    (with_score(float("nan")), r"the score of image 2, prompt 'prompt 2', is nan; a score is a finite number"),
    (with_score(float("inf")), r"is inf; a score is a finite number"),
    (with_score(1e300), r"is 1e\+300; a score is a finite number"),
    (with_score(10**200), r"a score is a finite number"),
    (with_score("0.5"), r"is '0\.5'; a score is a finite number"),
    (with_score(True), r"is True; a score is a finite number"),
    (with_score(None), r"is None; a score is a finite number"),
    (with_score([1.0]), r"is \[1\.0\]; a score is a finite number"),
    (lambda answer: {"error": "I failed"}, r"version changed from v1 to None"),
]


class TestLies:
    @pytest.mark.parametrize(("change", "message"), LIES)
    def test_they_are_found_out_in_one_line(self, images: Tensor, change: Any, message: str) -> None:
        with served(liar(change)) as server:
            reward = reward_at(server)
            with pytest.raises(RewardServerError, match=message) as caught:
                reward(images[:3], PROMPTS[:3])
        assert str(caught.value).startswith(f"reward far at {server.url}: ")
        assert "\n" not in str(caught.value)

    def test_the_same_image_with_other_prompts_cannot_be_exchanged(self, images: Tensor) -> None:
        with served(liar(permuted)) as server, pytest.raises(RewardServerError, match="another row: prompt"):
            reward_at(server)(images[[0, 0]], PROMPTS[:2])

    @pytest.mark.parametrize(
        ("offer", "message"),
        [
            (as_json({"rewards": []}), r"does not speak protocol 1"),
            (as_json({"protocol": 2, "rewards": []}), r"does not speak protocol 1"),
            (as_json({"protocol": 1, "rewards": {}}), r"does not speak protocol 1"),
            (offers("other"), r"does not offer 'size'; it offers 'other'"),
            (as_json({"protocol": 1, "rewards": ["size", 3]}), r"does not offer 'size'; it offers nothing"),
            (as_json({"protocol": 1, "rewards": [{"name": "size"}]}), r"lacks version, step_aware, max_images"),
            (offers(version=""), r"lacks sense"),
            (offers(version="v" * 500), r"lacks sense"),
            (offers(version="v1\n\x1b[31m"), r"lacks sense"),  # it stands in logs
            (offers(max_images=0), r"lacks sense"),
        ],
    )
    def test_so_are_false_offers_at_the_start(self, offer: Answer, message: str) -> None:
        with served(lambda *_: offer) as server, pytest.raises(RewardServerError, match=message):
            reward_at(server)


class TestCache:
    def test_scores_survive_a_restart(self, tmp_path: Path, images: Tensor) -> None:
        with served(honest) as server:
            first = reward_at(server, cache=str(tmp_path / "scores.db"))
            whole = first(images, PROMPTS)
            again = reward_at(server, cache=str(tmp_path / "scores.db"))
            posts = len(server.posts())
            assert torch.equal(again(images, PROMPTS), whole)
            assert len(server.posts()) == posts
            again(images, [*PROMPTS[:6], "another"])
        assert [len(body["images"]) for body in server.posts()[posts:]] == [1]

    def test_another_version_is_scored_anew(self, tmp_path: Path, images: Tensor) -> None:
        for version in ("v1", "v2"):

            def answer(_method: str, path: str, body: Any, version: str = version) -> Answer:
                return (
                    offers(version=version) if path == "/rewards" else as_json(scored(body, mean_of, version=version))
                )

            with served(answer) as server:
                reward_at(server, cache=str(tmp_path / "scores.db"))(images, PROMPTS)
            assert len(server.posts()) == 3

    def test_what_arrived_before_a_failure_is_kept(self, tmp_path: Path, images: Tensor) -> None:
        asked: list[int] = []

        def dies(method: str, path: str, body: Any) -> Answer:
            if path == "/rewards":
                return offers()
            asked.append(1)
            return as_json({"error": "out of memory"}, 500) if len(asked) == 3 else honest(method, path, body)

        settings = {"cache": str(tmp_path / "scores.db"), "concurrency": 1}
        with served(dies) as server:
            with pytest.raises(RewardServerError, match=r"answered 500: out of memory \(1 try\); start it again"):
                reward_at(server, **settings)(images, PROMPTS)
            assert torch.equal(reward_at(server, **settings)(images, PROMPTS), expected(images))
        assert [len(body["images"]) for body in server.posts()] == [3, 3, 1, 1]

    def test_requests_are_divided_as_without_a_cache(self, tmp_path: Path, images: Tensor) -> None:
        with served(honest) as server:
            reward = reward_at(server, cache=str(tmp_path / "scores.db"), concurrency=1)
            reward(images[:1], PROMPTS[:1])
            reward(images, PROMPTS)
        assert [body["prompts"] for body in server.posts()] == [PROMPTS[:1], PROMPTS[1:3], PROMPTS[3:6], PROMPTS[6:]]


def test_versions_are_asked_for_once(images: Tensor) -> None:
    with served(honest) as server:
        far = definition(server)
        definitions = {
            "far": far,
            "mix": RewardDefinition.model_validate({"terms": {"far": 2.0, "jpeg-compressibility": 1.0}}),
        }
        assert server_versions(["jpeg-compressibility", "mix", "far"], definitions) == {"far": "v1"}
        mix = build_reward("mix", definitions=definitions)
        assert torch.equal(
            mix(images, PROMPTS), 2.0 * expected(images) + build_reward("jpeg-compressibility")(images, PROMPTS)
        )
        assert [path for _, path, _, _ in server.asked].count("/rewards") == 1
        forget("far", definitions)
        assert server_versions(["far"], definitions) == {"far": "v1"}
        assert [path for _, path, _, _ in server.asked].count("/rewards") == 2


def test_where_images_are_sent_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="seedpo"), served(honest) as server:
        reward_at(server)
    assert (
        f"reward far: images and prompts are sent to {server.url}, which scores them by size, version v1" in caplog.text
    )


def test_png_files_are_lossless_and_always_the_same() -> None:
    pixels = torch.randint(0, 256, (3, 17, 33), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    file = png_bytes(pixels)
    back = torch.from_numpy(np.array(Image.open(io.BytesIO(file)))).permute(2, 0, 1)
    assert torch.equal(back, pixels)
    assert png_bytes(pixels.clone()) == file
    assert image_hash(file) == image_hash(png_bytes(pixels))
    assert image_hash(file) != image_hash(png_bytes(pixels.flip(2)))
