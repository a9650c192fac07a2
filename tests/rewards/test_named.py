from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from seedpo.errors import ConfigError, DataError
from seedpo.recipes.reading import read_recipe
from seedpo.rewards.clip_score import pickscore
from seedpo.rewards.named import CheckedReward, SummedReward, build_reward, combined, forget
from seedpo.rewards.names import check_definitions, image_sizes, leaves, source_of
from seedpo.rewards.remote import http_reward
from seedpo.rewards.settings import HttpSettings, RewardTerm
from seedpo.scenes.shipped import scenes_scorer
from seedpo.settings import build_config, changes_results
from seedpo.training.configuration import resolve_config
from seedpo.training.settings import RunConfig
from tests.rewards.small_checkpoints import write_clip
from tests.scenes.drawings import some_drawings

PROMPTS = ["a large red circle on a gray background", "a small blue star on a white background"]
SUMS = {
    "mix": {"terms": {"scenes-scorer": 1, "jpeg-compressibility": {"weight": 0.5, "mean": -1.0, "std": 0.25}}},
    "twice": {"terms": {"mix": 2, "jpeg-compressibility": -1}},
    "plain": {"terms": {"jpeg-compressibility": 1, "scenes-truth": 2}},
}
FAR = {"far": {"http": {"url": "http://127.0.0.1:8077", "reward": "pickscore"}}}


def definitions(tree: Any = SUMS) -> Any:
    return build_config(RunConfig, {"rewards": tree}).rewards


@pytest.fixture(scope="module")
def images() -> Tensor:
    return some_drawings(PROMPTS)


class TestNames:
    def test_what_is_registered_is_loaded_once(self) -> None:
        assert build_reward("scenes-scorer").reward is build_reward("scenes-scorer").reward

    def test_a_registered_name_at_another_place(self, tmp_path: Path) -> None:
        write_clip(tmp_path)
        name = f"pickscore@{tmp_path}"
        reward = build_reward(name)
        assert reward.name == name
        assert reward.reward is pickscore(str(tmp_path))
        assert reward(torch.rand(2, 3, 8, 8), PROMPTS).shape == (2,)

    def test_a_folder_with_a_clip(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_clip(tmp_path / "my-clip")
        monkeypatch.chdir(tmp_path)
        assert build_reward("my-clip")(torch.rand(2, 3, 8, 8), PROMPTS).shape == (2,)

    def test_what_is_none(self) -> None:
        for name, message in [
            ("pickscor", r"unknown reward 'pickscor'; did you mean 'pickscore'\? there are: mix, .*dina-lrm; or name@"),
            ("mixx", r"unknown reward 'mixx'; did you mean 'mix'\?"),
            ("jpeg-compressibility@models/x", r"jpeg-compressibility .*; write"),
            ("hpsv2.1@", r"hpsv2\.1@xswu/HPSv2"),
        ]:
            with pytest.raises(ConfigError, match=message):
                build_reward(name, definitions=definitions())

    def test_a_folder_without_the_files(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"pickscore") as caught:
            build_reward(f"pickscore@{tmp_path}")
        assert "\n" not in str(caught.value)

    def test_what_is_forgotten_is_loaded_anew(self) -> None:
        first = scenes_scorer()
        forget("scenes-scorer")
        assert build_reward("scenes-scorer").reward is not first


class TestSums:
    def test_they_are_the_sums_that_they_say(self, images: Tensor) -> None:
        scorer, jpeg = (build_reward(name)(images, PROMPTS) for name in ("scenes-scorer", "jpeg-compressibility"))
        mix = scorer + 0.5 * (jpeg + 1.0) / 0.25
        torch.testing.assert_close(build_reward("mix", definitions=definitions())(images, PROMPTS), mix)
        twice = build_reward("twice", definitions=definitions())
        torch.testing.assert_close(twice(images, PROMPTS), 2.0 * mix - jpeg)
        assert twice.name == "twice"

    def test_a_score_does_not_depend_on_what_is_scored_beside_it(self, images: Tensor) -> None:
        mix = build_reward("mix", definitions=definitions())
        together = mix(images, PROMPTS)
        for row in range(2):
            torch.testing.assert_close(mix(images[row : row + 1], PROMPTS[row : row + 1]), together[row : row + 1])

    def test_time_steps_reach_the_terms_that_take_them(self, images: Tensor) -> None:
        mix, plain = (build_reward(name, definitions=definitions()) for name in ("mix", "plain"))
        assert mix.step_blind == ("jpeg-compressibility",)
        assert not mix.step_aware
        assert plain.step_blind == ("jpeg-compressibility", "scenes-truth")
        time = torch.full((2,), 800)
        assert not torch.equal(mix(images, PROMPTS, timestep=time), mix(images, PROMPTS))
        assert torch.equal(plain(images, PROMPTS, timestep=time), plain(images, PROMPTS))
        aware = build_reward("one", definitions=definitions({"one": {"terms": {"scenes-scorer": 3}}}))
        assert aware.step_aware

    def test_what_they_are_made_of(self) -> None:
        sums = definitions()
        assert leaves("twice", sums) == ["scenes-scorer", "jpeg-compressibility"]
        assert leaves("pickscore", sums) == ["pickscore"]
        assert image_sizes("plain", sums) == {"scenes-truth": 32}

    def test_from_scores_of_their_parts_they_are_the_same(self, images: Tensor) -> None:
        sums = definitions()
        parts = {name: build_reward(name)(images, PROMPTS) for name in leaves("twice", sums)}
        assert torch.equal(combined("twice", sums, parts), build_reward("twice", definitions=sums)(images, PROMPTS))

    def test_names_that_cannot_be(self) -> None:
        for tree, message in [
            ({"pickscore": {"terms": {"hpsv2": 1}}}, r"rewards\.pickscore has the name of a registered reward; give"),
            ({"a/b": {"terms": {"hpsv2": 1}}}, r"rewards\.a/b could be mistaken for a path"),
            ({"file": {"terms": {"hpsv2": 1}}}, r"rewards\.file could be mistaken for .* a column"),
            ({"mix": {"terms": {"hpsv": 1}}}, r"rewards\.mix: unknown reward 'hpsv'; did you mean 'hpsv[23]'\?"),
            ({"mix": {"terms": {"jpeg-compressibility@x": 1}}}, r"rewards\.mix: reward jpeg-compressibility@x: "),
        ]:
            with pytest.raises(ConfigError, match=message):
                check_definitions(definitions(tree))
            with pytest.raises(ConfigError, match=message):
                resolve_config("d3po", {"rewards": tree})


class TestConfig:
    def test_a_number_alone_is_a_weight(self) -> None:
        terms = definitions()["mix"].terms
        assert terms["scenes-scorer"] == RewardTerm(weight=1.0)
        assert terms["jpeg-compressibility"] == RewardTerm(weight=0.5, mean=-1.0, std=0.25)

    def test_they_are_saved_and_read_back(self) -> None:
        config = build_config(RunConfig, {"rewards": SUMS, "reward": "mix", "reward_precision": False})
        assert build_config(RunConfig, config.model_dump(mode="json")) == config
        assert config.reward_precision == "no"

    def test_what_is_refused(self) -> None:
        for tree, message in [
            ({"mix": {"terms": {}}}, r"rewards\.mix = .*needs at least one term"),
            (
                {"mix": {}},
                r"rewards\.mix = .*give one of terms \(a weighted sum\), http \(a .*\) or vlm \(.*\), not nothing",
            ),
            (
                {"mix": {"terms": {"hpsv2": 1}, "http": {"url": "http://a", "reward": "b"}}},
                r"give one of terms .*, not terms and http",
            ),
            (
                {"far": {"http": {"url": "a:8077", "reward": "b"}}},
                r"rewards\.far\.http\.url = 'a:8077': write the",
            ),
            ({"far": {"http": {"url": "http://a"}}}, r"rewards\.far\.http\.reward"),
            (
                {"far": {"http": {"url": "http://a", "reward": "b", "tiemout": 3}}},
                r"did you mean 'rewards.far.http",
            ),
            ({"far": {"http": {"url": "http://a", "reward": "b", "key_env": "a b"}}}, r"rewards\.far\.http\.key_env"),
            ({"mix": {"terms": {"hpsv2": 0}}}, r"every weight is 0"),
            ({"mix": {"terms": {"hpsv2": {"weight": 1, "mean": 2}}}}, r"mean and std belong together; give both"),
            ({"mix": {"terms": {"hpsv2": {"weight": 1, "mean": 2, "std": 0}}}}, r"std = 0: .*greater than 0"),
            (
                {"mix": {"terms": {"hpsv2": {"wieght": 1, "weight": 1}}}},
                r"'rewards\.mix\.terms\.hpsv2\.wieght'; did you",
            ),
            (
                {"mix": {"term": {"hpsv2": 1}, "terms": {"hpsv2": 1}}},
                r"'rewards\.mix\.term'; did you mean 'rewards.mix.terms'",
            ),
            ({"a": {"terms": {"b": 1}}, "b": {"terms": {"a": 1}}}, r"a -> b -> a is a circle: a sum cannot be made of"),
            ({"a": {"terms": {"a": 1}}}, r"a -> a is a circle"),
            ({"a": {"terms": {"hpsv2": True}}}, r"rewards\.a\.terms\.hpsv2 = True"),
        ]:
            with pytest.raises(ConfigError, match=message) as caught:
                definitions(tree)
            assert "\n" not in str(caught.value)


class TestOnServers:
    def test_they_are_parts_like_others(self) -> None:
        sums = definitions({**FAR, "mix": {"terms": {"far": 1, "jpeg-compressibility": 2, "http://a/b": 1}}})
        check_definitions(sums)
        assert leaves("far", sums) == ["far"]
        assert leaves("mix", sums) == ["far", "jpeg-compressibility", "http://a/b"]
        source = source_of("far", sums)
        assert source.remote == HttpSettings(url="http://127.0.0.1:8077", reward="pickscore")
        assert not any([source.is_code, source.is_latent_folder, source.reads_latents, source.is_guided])
        scores = {"far": torch.tensor([3.0]), "jpeg-compressibility": torch.tensor([0.5]), "http://a/b": torch.ones(1)}
        assert combined("mix", sums, scores).tolist() == [5.0]
        assert image_sizes("mix", sums) == {}

    def test_an_address_is_a_name(self) -> None:
        for name, url, reward in [
            ("http://127.0.0.1:8077/pickscore", "http://127.0.0.1:8077", "pickscore"),
            ("https://gpu.example/models/my-clip", "https://gpu.example", "models/my-clip"),
            ("http://[::1]:80/my_code:reward", "http://[::1]:80", "my_code:reward"),
        ]:
            assert source_of(name).remote == HttpSettings(url=url, reward=reward)
            assert leaves(name) == [name]
        for name in ("http://a:8077", "http://a/", "http:///b", "http://user@a/b", "https://"):
            with pytest.raises(ConfigError, match=r"is no address of a reward; write http://HOST:PORT/NAME"):
                source_of(name)

    def test_they_are_saved_and_read_back(self) -> None:
        config = build_config(RunConfig, {"rewards": {**SUMS, **FAR}, "reward": "far"})
        saved = config.model_dump(mode="json")
        assert build_config(RunConfig, saved) == config
        assert list(saved["rewards"]["far"]) == ["http"]
        assert list(saved["rewards"]["mix"]) == ["terms"]

    def test_where_a_server_is_changes_no_result(self) -> None:
        for key, changes in [
            ("rewards.far.http.url", False),
            ("rewards.far.http.cache", False),
            ("rewards.far.http.reward", True),
            ("rewards.far.http.batch_size", True),
            ("rewards.mix.terms.pickscore.weight", True),
            ("rewards.mix.terms.hpsv2.1.weight", True),
        ]:
            assert changes_results(RunConfig, key) is changes, key

    def test_what_decides_scores(self) -> None:
        far, mix = (definitions({**FAR, **SUMS})[name].deciding() for name in ("far", "mix"))
        assert far == {"http": {"reward": "pickscore", "batch_size": 16}}
        assert mix["terms"]["scenes-scorer"] == {"weight": 1.0, "mean": None, "std": None}

    def test_a_cache_begins_beside_the_recipe(self, tmp_path: Path) -> None:
        recipe = tmp_path / "mine.yaml"
        (tmp_path / "my-clip").mkdir()
        recipe.write_text(
            "rewards:\n"
            "  far: {http: {url: 'http://a', reward: my-clip, cache: scores.db}}\n"
            "  mix: {terms: {my-clip: 1.0, pickscore: 2.0}}\n"
        )
        rewards = read_recipe(recipe, RunConfig)["rewards"]
        assert rewards["far"]["http"] == {"url": "http://a", "reward": "my-clip", "cache": str(tmp_path / "scores.db")}
        assert rewards["mix"]["terms"] == {str(tmp_path / "my-clip"): 1.0, "pickscore": 2.0}


class TestChecks:
    def test_bad_scores_are_never_ranked(self, images: Tensor) -> None:
        for scores, message in [
            (torch.zeros(2, 1), r"reward mine .*\(2, 1\) for 2 images.*\(2,\)"),
            (torch.zeros(1), r"\(1,\) for 2 images"),
            (torch.tensor([0.0, float("inf")]), r"reward mine .*inf for image 1, .*'a small blue star"),
            (torch.tensor([float("nan"), 0.0]), r"reward mine .*nan for image 0, .*'a large red circle"),
            (torch.zeros(2, dtype=torch.complex64), r"complex64"),
            ([0.0, 1.0], "list"),
        ]:
            with pytest.raises(DataError, match=message):
                CheckedReward("mine", lambda images, prompts, scores=scores: scores)(images, PROMPTS)

    def test_whole_numbers_and_gradients_are_put_right(self, images: Tensor) -> None:
        def counting(images: Tensor, prompts: Sequence[str]) -> Tensor:
            return torch.arange(len(prompts))

        assert CheckedReward("mine", counting)(images, PROMPTS).dtype == torch.float32
        weights = torch.ones(2, requires_grad=True)
        assert not CheckedReward("mine", lambda images, prompts: weights * 2)(images, PROMPTS).requires_grad

    @pytest.mark.usefixtures("loaded_anew_afterwards")
    def test_precision_reaches_the_network_and_goes_back(self) -> None:
        scorer = build_reward("scenes-scorer", precision="bf16").reward
        assert {parameter.dtype for parameter in scorer.model.parameters()} == {torch.bfloat16}  # type: ignore[attr-defined]
        build_reward("scenes-scorer")
        assert {parameter.dtype for parameter in scorer.model.parameters()} == {torch.float32}  # type: ignore[attr-defined]


class TestLater:
    """What is computed elsewhere is asked at once, and waited for when its scores are needed."""

    class Far:
        """Answers after it was told to."""

        def __init__(self) -> None:
            self.answering = threading.Event()
            self.under_way: list[int] = []

        def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
            self.under_way.append(len(images))
            assert self.answering.wait(30)
            return images.mean((1, 2, 3)) + len(prompts)

    def test_it_is_not_waited_for(self, images: Tensor) -> None:
        far = self.Far()
        reward = CheckedReward("far", far, elsewhere=True)
        waits = [reward.later(images[:1], PROMPTS[:1]), reward.later(images, PROMPTS)]
        far.answering.set()
        assert torch.equal(waits[1](), reward(images, PROMPTS))
        assert torch.equal(waits[0](), reward(images[:1], PROMPTS[:1]))
        assert far.under_way == [1, 2, 2, 1], "in the order in which it was asked, one call at a time"

    def test_what_is_computed_here_is_computed_at_once(self, images: Tensor) -> None:
        asked: list[int] = []

        def here(images: Tensor, prompts: Sequence[str]) -> Tensor:
            asked.append(len(images))
            return images.mean((1, 2, 3))

        wait = CheckedReward("here", here).later(images, PROMPTS)
        assert asked == [2]
        assert torch.equal(wait(), images.mean((1, 2, 3)))
        assert asked == [2]

    def test_of_a_sum_the_terms_elsewhere_are_asked_first(self, images: Tensor) -> None:
        far, seen = self.Far(), list[list[int]]()

        def here(images: Tensor, prompts: Sequence[str]) -> Tensor:
            for _ in range(1000):  # the other thread has taken the question, or will
                if far.under_way:
                    break
                time.sleep(0.01)
            seen.append(list(far.under_way))
            far.answering.set()
            return images.amax((1, 2, 3))

        parts = [
            (CheckedReward("here", here), RewardTerm(weight=2.0)),
            (CheckedReward("far", far, elsewhere=True), RewardTerm(weight=1.0)),
        ]
        reward = CheckedReward("mix", SummedReward(parts))
        assert reward.elsewhere
        scores = reward.later(images, PROMPTS)()
        assert seen == [[2]]
        assert torch.equal(scores, reward(images, PROMPTS))

    def test_its_error_is_raised_when_it_is_waited_for(self, images: Tensor) -> None:
        wait = CheckedReward("far", lambda images, prompts: torch.tensor([1.0, math.nan]), elsewhere=True).later(
            images, PROMPTS
        )
        with pytest.raises(DataError, match="reward far returned nan for image 1"):
            wait()

    def test_a_reward_of_a_server_is_computed_elsewhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(http_reward, "http_reward", lambda name, settings: lambda images, prompts: torch.zeros(2))
        assert build_reward("far", definitions=definitions(FAR)).elsewhere
        assert not build_reward("jpeg-compressibility").elsewhere
