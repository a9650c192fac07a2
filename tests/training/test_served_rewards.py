"""Runs whose reward a server computes: the numbers of the reward at home, also after the server failed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from seedpo.errors import RewardServerError, RunFolderError
from seedpo.rewards.remote.http_reward import http_reward
from seedpo.rewards.remote.offers import Limits, Offer, answer, build_offers, read_question
from seedpo.training.configuration import resolve_config
from seedpo.training.run import train
from tests.rewards.remote.stand_in import Answer, StandIn, as_json, offers, served, slowly
from tests.small_runs import metrics, small

LENGTH = {"max_steps": 4, "checkpoint_every": 2, "evaluate_every": 2}


class Server:
    """Scores by a reward of this package, as long as it lives."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.offers = build_offers([name], device="cpu")
        self.version = "v1"
        self.lives: float = float("inf")

    def __call__(self, _method: str, path: str, body: Any) -> Any:
        if path == "/rewards":
            return offers(self.name, version=self.version, step_aware=self.name == "scenes-scorer")
        self.lives -= 1
        if self.lives < 0:
            return slowly([], 0.0)
        known = {self.name: Offer(reward=self.offers[self.name].reward, version=self.version)}
        content: Answer = as_json(answer(read_question(json.dumps(body).encode()), known, limits=Limits()))
        return content


@pytest.fixture
def server() -> Iterator[tuple[Server, StandIn]]:
    behaviour = Server("scenes-scorer")
    with served(behaviour) as stand_in:
        yield behaviour, stand_in
    http_reward.cache_clear()


def run(
    folder: Path, url: str, *, served_as: str = "scenes-scorer", resume: Any = None, method: str = "spo", **keys: Any
) -> None:
    """A small run whose reward `far` is on a server."""
    http_reward.cache_clear()  # each run is a process of its own
    http = {"url": url, "reward": served_as, "batch_size": 3, "retries": 0, **keys}
    train_with(folder, "far", method=method, resume=resume, rewards={"far": {"http": http}})


def train_with(folder: Path, reward: str, *, method: str, resume: Any = None, **changes: Any) -> None:
    changes = {**LENGTH, **changes, "reward": reward, "evaluation": {"rewards": [reward]}}
    train(resolve_config(method, small(folder.parent, **changes)), folder, resume=resume, progress=False)


def figures(folder: Path, name: str) -> list[dict[str, Any]]:
    """The lines of metrics, in which the reward has a name that all runs share."""
    return [{key.replace(name, "reward"): value for key, value in line.items()} for line in metrics(folder)]


def test_a_run_has_the_numbers_of_the_reward_at_home(tmp_path: Path) -> None:
    """A plain CLIP rounds images to 8 bits before it looks at them, as they are when they travel."""
    train_with(tmp_path / "home", "scenes-plain", method="d3po")
    with served(Server("scenes-plain")) as stand_in:
        run(tmp_path / "away", stand_in.url, served_as="scenes-plain", method="d3po", batch_size=64)
    assert stand_in.posts()
    assert figures(tmp_path / "away", "far") == figures(tmp_path / "home", "scenes-plain")


def test_a_run_that_its_server_ended_is_resumed_as_if_nothing_had_happened(
    tmp_path: Path, server: tuple[Server, StandIn]
) -> None:
    behaviour, stand_in = server
    run(tmp_path / "whole", stand_in.url)
    needed = len(stand_in.posts())
    whole = figures(tmp_path / "whole", "far")
    behaviour.lives = needed - 3
    with pytest.raises(RewardServerError, match=r"reward far at http.* does not answer .*--resume latest") as caught:
        run(tmp_path / "parts", stand_in.url, cache=str(tmp_path / "scores.db"))
    assert "\n" not in str(caught.value)
    before = figures(tmp_path / "parts", "far")
    assert before == whole[: len(before)]
    assert any(line["step"] == 2 for line in before)
    behaviour.lives = float("inf")
    behaviour.version = "v2"
    with pytest.raises(RunFolderError, match=r"with other versions of rewards on servers .* \(far\); serve the first"):
        run(tmp_path / "parts", stand_in.url, resume="latest")
    behaviour.version = "v1"
    with served(behaviour) as moved:
        cache = str(tmp_path / "scores.db")
        run(tmp_path / "parts", moved.url, resume="latest", cache=cache, concurrency=1, timeout=30.0)
    assert figures(tmp_path / "parts", "far") == whole
    assert 0 < len(moved.posts()) < needed / 2


def test_a_version_that_changes_in_a_run_ends_it(tmp_path: Path, server: tuple[Server, StandIn]) -> None:
    behaviour, stand_in = server
    stand_in.answer = lambda *asked: (
        setattr(behaviour, "version", "v2" if len(stand_in.posts()) > 3 else "v1") or behaviour(*asked)
    )
    with pytest.raises(RewardServerError, match=r"the reward's version changed from v1 to 'v2'.*start a new run"):
        run(tmp_path / "run", stand_in.url)
