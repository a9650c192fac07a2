"""The keys of `anchor`: what acts nowhere, or cannot, is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from seedpo.errors import ConfigError
from seedpo.methods.anchors import ANCHORS, Anchored
from seedpo.methods.settings import AnchorConfig
from seedpo.methods.sources.data_anchor import SourceWithData
from seedpo.models.policy import build_policy
from seedpo.training.configuration import resolve_config
from seedpo.training.run import build_method, build_source
from tests.small_runs import small

METHODS = ("diffusion-dpo", "d3po", "spo")


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("spo", {"anchor": {"kl": -1.0}}, r"^anchor\.kl = -1"),
        ("spo", {"anchor": {"steps": "early"}}, r"^anchor.*steps = early has no effect with kl = 0; leave it out"),
        ("spo", {"anchor": {"toward": "initial"}}, r"^anchor.*toward = initial has no effect with kl = 0"),
        ("spo", {"anchor": {"kl": 1.0, "steps": "late"}}, r"^anchor\.steps = 'late'"),
        ("spo", {"anchor": {"data": 0.1}}, r"^anchor.*data = 0\.1 needs images; set anchor\.data_set"),
        ("spo", {"anchor": {"data_set": "a/"}}, r"^anchor.*data_set = a/ has no effect with data = 0"),
        (
            "diffusion-dpo",
            {"anchor": {"kl": 1.0}, "cache": {"folder": "c", "reference": True, "visits": 1}},
            r"^anchor\.kl = 1 needs cache\.reference = false",
        ),
    ],
)
def test_refusals(tmp_path: Path, method: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        resolve_config(method, small(tmp_path, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", METHODS)
def test_weights_of_0_leave_objective_and_source_alone(tmp_path: Path, method: str) -> None:
    plain = resolve_config(method, small(tmp_path))
    config = resolve_config(method, small(tmp_path, anchor={"kl": 0.0, "winner": 0.0, "data": 0.0}))
    policy = build_policy(config)
    for build in (build_method, lambda some: build_source(some, policy)):
        assert type(build(config)) is type(build(plain)) not in (Anchored, SourceWithData)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_every_anchor(tmp_path: Path, method: str) -> None:
    keys = small(tmp_path)
    keys["anchor"] = {"kl": 1.0, "winner": 0.5, "data": 0.1, "data_set": keys["data"]}
    config = resolve_config(method, keys)
    objective, source = build_method(config), build_source(config, build_policy(config))
    assert isinstance(objective, Anchored)
    assert isinstance(source, SourceWithData)
    assert config.anchor.weights.keys() == ANCHORS.keys()
    assert "anchor.data_set" in source.fingerprints()


def test_each_weight_has_a_term() -> None:
    everything = AnchorConfig(kl=1.0, winner=1.0, data=1.0, data_set="a/")
    assert everything.weights.keys() == ANCHORS.keys()
