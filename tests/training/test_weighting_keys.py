"""The keys of `weighting`: what acts nowhere is refused in one line; runs that weigh go on as if never stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from seedpo.errors import ConfigError
from seedpo.methods.presets import METHODS
from seedpo.models.policy import build_policy
from seedpo.reports.charts import health_panels
from seedpo.reports.families import group
from seedpo.reports.runs import read_runs
from seedpo.settings import merge
from seedpo.training.configuration import resolve_config
from seedpo.training.expectations import what_to_expect
from seedpo.training.run import build_source, train
from tests.small_runs import metrics, small

OPINION = {"second_opinion": "scenes-plain"}
FOUR = {"trajectories": {"images_per_prompt": 4}, "steps": {"candidates": 4}, "groups": {"images_per_prompt": 4}}
EVERYTHING = {"novelty": 1.0, "outliers": 0.1, "suspect_share": 0.5, **OPINION}
ONE_OF_EACH = ("spo", "d3po", "online-dpo", "dgpo", "nft", "flow-grpo")


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("spo", {"weighting": {"novelty": -1.0}}, r"^weighting\.novelty = -1"),
        ("spo", {"weighting": {"outliers": 1.0}}, r"^weighting\.outliers = 1"),
        ("spo", {"weighting": {"novelty": 1.0}}, r"^weighting\.novelty = 1 has no effect with steps\.candidates = 2"),
        (
            "d3po",
            {"weighting": {"novelty": 1.0}},
            r"^weighting\.novelty = 1 has no effect with trajectories\.images_per_prompt = 2",
        ),
        (
            "nft",
            {"weighting": {"novelty": 1.0}},
            r"^weighting\.novelty = 1 has no effect with groups\.images_per_prompt = 2",
        ),
        ("spo", {**FOUR, "weighting": {"novelty": 1.0, "features": None}}, r"weighting\.features names nothing"),
        ("spo", {**FOUR, "weighting": {"novelty": 1.0, "features": "dinov9"}}, r"^weighting\.features.*dinov9.*pixels"),
        ("spo", {**FOUR, "weighting": {"novelty": 1.0, "features": "pixels@a"}}, r"^weighting\.features.*pixels@a"),
        ("spo", {"weighting": {"second_opinion": "no-such"}}, r"no-such"),
        (
            "spo",
            {"weighting": {"second_opinion": ["scenes-scorer"]}},
            r"^weighting\.second_opinion = scenes-scorer is the reward that is optimised",
        ),
        (
            "spo",
            {"weighting": {"second_opinion": ["scenes-plain", "scenes-plain"]}},
            r"second_opinion names a reward twice",
        ),
        ("spo", {"weighting": {"second_opinion": "lrm-sd15"}}, r"^weighting\.second_opinion = lrm-sd15.*noisy latents"),
        ("spo", {"weighting": {"suspect_anchor": 1.0}}, r"suspect_anchor = 1\.0 needs weighting\.second_opinion"),
        ("spo", {"weighting": {"suspect_share": 0.2}}, r"suspect_share = 0\.2 needs weighting\.second_opinion"),
        ("spo", {"weighting": {"agreement": True}}, r"agreement = True needs weighting\.second_opinion"),
        ("dgpo", {"weighting": {**OPINION, "agreement": True}}, r"weighting\.agreement"),
        ("spo", {"weighting": {"drop_suspects": True}}, r"drop_suspects = True needs weighting\.second_opinion"),
        ("spo", {"weighting": {"gate_anchor": True}}, r"gate_anchor = True needs weighting\.second_opinion"),
        (
            "spo",
            {"weighting": {**OPINION, "drop_suspects": True, "suspect_anchor": 1.0}},
            r"suspect_anchor = 1 has no effect with drop_suspects",
        ),
        (
            "spo",
            {"weighting": {**OPINION, "drop_suspects": True, "gate_anchor": True}, "anchor": {"kl": 1.0}},
            r"gate_anchor has no effect with drop_suspects",
        ),
        (
            "spo",
            {"weighting": {**OPINION, "gate_anchor": True}},
            r"^weighting\.gate_anchor = true .* without anchor\.kl",
        ),
        (
            "nft",
            {"weighting": {**OPINION, "suspect_anchor": 1.0}},
            r"^weighting\.suspect_anchor = 1.* has no effect on nft",
        ),
        (
            "flow-grpo",
            {"beta": 0.0, "weighting": {**OPINION, "suspect_anchor": 1.0}},
            r"^weighting\.suspect_anchor = 1 has no effect at beta = 0",
        ),
        ("diffusion-dpo", {"weighting": {"outliers": 0.1}}, r"^weighting\.outliers = 0\.1 has no effect on"),
        ("kto", {"pairs": {"from_scores": "likes-of-pairs"}, "weighting": OPINION}, r"^weighting\.second_opinion"),
        ("d3po", {"feedback": {"study": "s"}, "weighting": {"outliers": 0.1}}, r"^weighting\.outliers .* people"),
        ("d3po", {"feedback": {"study": "s"}, "weighting": OPINION}, r"^weighting\.second_opinion .* people"),
        (
            "lpo",
            {**FOUR, "reward": "lrm-sd15", "weighting": {"novelty": 1.0}},
            r"^weighting\.novelty = 1 looks at previews, and reward lrm-sd15 scores latents",
        ),
        (
            "lpo",
            {"reward": "lrm-sd15", "weighting": OPINION},
            r"^weighting\.second_opinion = scenes-plain looks at previews",
        ),
    ],
)
def test_refusals(tmp_path: Path, method: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        resolve_config(method, small(tmp_path, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ONE_OF_EACH)
def test_by_default_nobody_looks(tmp_path: Path, method: str) -> None:
    config = resolve_config(method, small(tmp_path))
    source: Any = build_source(config, build_policy(config))
    assert not config.weighting.is_active
    assert source.rollout.weigher is None


def test_each_source_that_draws_is_tried_here() -> None:
    drawing = {row.source.target for row in METHODS.entries if not row.source.fixed_pairs}
    assert drawing == {METHODS[name].source.target for name in ONE_OF_EACH}


def keys(folder: Path, method: str, **changes: Any) -> dict[str, Any]:
    held = {"suspect_anchor": 1.0} if method != "nft" else {}
    gate = {"anchor": {"kl": 0.5}, "weighting": {**EVERYTHING, **held, "gate_anchor": True}}
    few = {"max_steps": 4, "evaluation": {"rewards": ["scenes-scorer"], "metrics": []}, "checkpoint_every": 2}
    return small(folder, **merge(merge(merge(FOUR, gate), few), changes))


@pytest.mark.parametrize("method", ONE_OF_EACH)
def test_stopped_and_resumed_is_never_stopped(tmp_path: Path, method: str) -> None:
    """In the middle of a roll-out, whose weights and suspects wait in the buffer."""
    settings = keys(tmp_path, method)
    train(resolve_config(method, settings), tmp_path / "whole", progress=False)
    train(resolve_config(method, {**settings, "max_steps": 2}), tmp_path / "stopped", progress=False)
    train(resolve_config(method, settings), tmp_path / "stopped", resume="latest", progress=False)
    whole, again = (
        [line for line in metrics(tmp_path / name) if line["kind"] == "train"] for name in ("whole", "stopped")
    )
    timed = {"seconds", "pairs_per_second"}
    assert [{k: v for k, v in line.items() if k not in timed} for line in whole] == [
        {k: v for k, v in line.items() if k not in timed} for line in again
    ]
    figures = {name for line in whole for name in line}
    assert {
        f"source/{name}" for name in ("suspicion", "suspects", "novelty", "novelty_weight_std", "left_out")
    } <= figures


def test_a_run_says_what_to_expect_and_its_report_draws_it(tmp_path: Path) -> None:
    config = resolve_config("spo", keys(tmp_path, "spo"))
    said = " ".join(what_to_expect(config, fixed_pairs=False))
    assert "source/novelty" in said
    assert "source/suspicion" in said
    assert "source/novelty" not in " ".join(what_to_expect(resolve_config("spo", small(tmp_path)), fixed_pairs=False))
    train(config, tmp_path / "run", progress=False)
    (family,) = group(read_runs([tmp_path / "run"]))
    drawn = {panel.title for panel in health_panels(family)}
    assert {"Novelty of winners", "Suspicion of winners"} <= drawn


@pytest.mark.parametrize("method", ["spo", "dgpo"])
def test_an_opinion_alone_changes_no_number(tmp_path: Path, method: str) -> None:
    few = {"max_steps": 3, "evaluation": {"metrics": []}, **FOUR}
    lines = []
    for name, weighting in (("plain", {}), ("asked", OPINION)):
        train(resolve_config(method, small(tmp_path, weighting=weighting, **few)), tmp_path / name, progress=False)
        lines.append([line for line in metrics(tmp_path / name) if line["kind"] == "train"])
    for plain, asked in zip(*lines, strict=True):
        assert {name: asked[name] for name in plain if "second" not in name} == {
            name: value for name, value in plain.items() if "second" not in name
        }
