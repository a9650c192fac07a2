"""The keys of `anchor`: what acts nowhere, or cannot, is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from seedpo.errors import ConfigError
from seedpo.methods.anchors import ANCHORS, Anchored
from seedpo.methods.presets import METHODS
from seedpo.methods.settings import AnchorConfig
from seedpo.methods.sources.data_anchor import SourceWithData
from seedpo.models.policy import build_policy
from seedpo.training.configuration import resolve_config
from seedpo.training.run import build_method, build_source
from tests.models.tiny import move, seeded
from tests.small_runs import small

PREFERRED = ("pairs", "likes", "steps")
"""What a source gives where something is preferred, so that `winner` acts."""

KINDS = {(row.objective, row.log_prob, row.source.gives): row.name for row in reversed(METHODS.entries)}
"""One method for each objective on each kind of batches."""


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("spo", {"anchor": {"kl": -1.0}}, r"^anchor\.kl = -1"),
        (
            "spo",
            {"anchor": {"steps": "early"}},
            r"^anchor\.steps = early has no effect on spo: it acts with anchor\.kl above 0",
        ),
        (
            "spo",
            {"anchor": {"toward": "initial"}},
            r"^anchor\.toward = initial has no effect on spo: it acts with anchor\.kl above 0",
        ),
        ("spo", {"anchor": {"kl": 1.0, "steps": "late"}}, r"^anchor\.steps = 'late'"),
        ("spo", {"anchor": {"data": 0.1}}, r"^anchor.*data = 0\.1 needs images; set anchor\.data_set"),
        (
            "spo",
            {"anchor": {"data_set": "a/"}},
            r"^anchor\.data_set = a/ has no effect on spo: it acts with anchor\.data above 0",
        ),
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


@pytest.mark.parametrize("method", KINDS.values())
def test_weights_of_0_leave_objective_and_source_alone(tmp_path: Path, method: str) -> None:
    config = resolve_config(method, small(tmp_path, anchor={"kl": 0.0, "winner": 0.0, "data": 0.0}))
    assert type(build_method(config)) is type(METHODS[method].build_objective(config))
    assert not isinstance(build_source(config, build_policy(config)), SourceWithData)


@pytest.mark.parametrize("method", KINDS.values())
def test_every_objective_takes_every_anchor(tmp_path: Path, method: str) -> None:
    """One micro-batch: the objective's losses and the terms, of a policy that has moved away from its reference."""
    preferred = METHODS[method].source.gives in PREFERRED
    keys = small(tmp_path)
    keys["anchor"] = {"kl": 1.0, "data": 0.1, "data_set": keys["data"], **({"winner": 0.5} if preferred else {})}
    config = resolve_config(method, keys)
    policy = move(build_policy(config), scale=0.02)
    objective, source = build_method(config), build_source(config, policy)
    assert isinstance(objective, Anchored)
    assert isinstance(source, SourceWithData)
    assert "anchor.data_set" in source.fingerprints()
    batch = source.next_batch()
    output = objective.loss(policy, batch, generator=seeded(1))
    alone = objective.method.loss(policy, batch.batch, generator=seeded(1))
    terms = sum(weight * output.metrics[f"anchor/{name}"] for name, weight in config.anchor.weights.items())
    torch.testing.assert_close(output.losses, alone.losses + terms)
    assert all(output.metrics[f"anchor/{name}"].min() > 0 for name in config.anchor.weights)
    assert len(config.anchor.weights) == 2 + preferred


@pytest.mark.parametrize("method", [name for name in KINDS.values() if METHODS[name].source.gives not in PREFERRED])
def test_no_winner_where_nothing_is_preferred(tmp_path: Path, method: str) -> None:
    with pytest.raises(ConfigError, match=r"^anchor\.winner = 1 has no effect"):
        resolve_config(method, small(tmp_path, anchor={"winner": 1.0}))


def test_each_weight_has_a_term() -> None:
    everything = AnchorConfig(kl=1.0, winner=1.0, data=1.0, data_set="a/")
    assert everything.weights.keys() == ANCHORS.keys()
