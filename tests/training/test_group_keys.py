"""What a run on images drawn online cannot do is refused in one line that names the key."""

from __future__ import annotations

from typing import Any

import pytest

from seedpo.errors import ConfigError
from seedpo.training.configuration import resolve_config


@pytest.mark.parametrize(
    ("method", "key", "changes"),
    [
        *(
            (method, r"groups\.images_per_prompt = 1", {"groups": {"images_per_prompt": 1}})
            for method in ("online-dpo", "dgpo", "nft")
        ),
        ("dgpo", r"groups\.normalise = raw", {"groups": {"normalise": "raw"}}),
        ("nft", r"objective\.advantage_limit = null", {"objective": {"advantage_limit": None}}),
        ("nft", r"gamma = 1\.0", {"gamma": 1.0}),
        ("nft", r"reference\.kind = ema needs reference\.decay", {"reference": {"decay": None, "decay_rise": None}}),
        ("dgpo", r"groups\.shared_noise = true", {"groups": {"shared_noise": True}}),
        ("dgpo", r"pairs\.validation = 0\.1", {"pairs": {"validation": 0.1}}),
        *(
            (method, rf"{section}\.min_gap = 1", {section: {"min_gap": 1.0}})
            for method, section in (("online-dpo", "groups"), ("dgpo", "groups"), ("d3po", "trajectories"))
        ),
        ("flow-grpo", r"step_groups\.window_range|window_range = 2", {"step_groups": {"window_range": 2}}),
        ("kto", "liked_weight", {"objective": {"liked_weight": 0, "disliked_weight": 0}}),
        ("dgpo", "reward", {"model": "owner/name", "reward": None}),
    ],
)
def test_refused_in_one_line(method: str, key: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=key) as refusal:
        resolve_config(method, changes)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("method", ["online-dpo", "dgpo", "nft"])
def test_groups_of_two_are_fine(method: str) -> None:
    changes = {"groups": {"images_per_prompt": 2, "min_gap": 0.1, "updates_per_rollout": 3}}
    config = resolve_config(method, changes)
    assert (config.groups.images_per_prompt, config.groups.min_gap) == (2, 0.1)
