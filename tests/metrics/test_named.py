from __future__ import annotations

from pathlib import Path

import pytest
import torch

from seedpo.cli.names import metric_facts
from seedpo.errors import ConfigError
from seedpo.metrics.catalogue import FEATURES, METRICS, SET_METRICS, MetricEntry, find_metric, metric_entry
from seedpo.metrics.named import build_features, build_metric, build_prompt_metric
from seedpo.metrics.records import Metric, Samples, SetMetric
from seedpo.registry import Registry
from tests.metrics.features.small_networks import small_clip

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
IMAGES = torch.rand(1, 3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_a_name_leads_to_its_metric() -> None:
    assert build_metric("truth") == Metric(facts=METRICS["truth"], per_prompt=METRICS.load("truth"))
    assert isinstance(build_metric("clip_diversity"), Metric)
    assert isinstance(build_metric("kid_dino"), SetMetric)
    assert build_features("truth") is None
    assert build_features("vendi_scenes_clip", device="cpu") is FEATURES.load("scenes-clip")()


def test_another_place(tmp_path: Path) -> None:
    folder = small_clip(tmp_path)
    metric = build_metric(f"clip_diversity@{folder}")
    assert isinstance(metric, Metric)
    features = build_features(f"recall_clip@{folder}")
    assert features is not None
    wanted = metric.of_features(features(IMAGES[0])[None])  # type: ignore[misc]
    torch.testing.assert_close(metric.per_prompt(Samples(images=IMAGES, prompts=["a"])), wanted)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("clip_diversty", "unknown metric 'clip_diversty'; did you mean 'clip_diversity'"),
        ("truth@here", "metric truth@here: truth has no weights that could be elsewhere; write truth"),
        ("vendi_pixels@here", "vendi_pixels has no weights"),
        ("vendi_scenes_clip@here", "vendi_scenes_clip has no weights"),
        ("fd_dino@", "after @ stands a folder or owner/name, for example fd_dino@facebook/dinov2-small"),
    ],
)
def test_errors_name_the_mend(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        metric_entry(name)


def test_no_metric_is_registered_twice() -> None:
    assert not set(METRICS.names()) & set(SET_METRICS.names())


def test_a_figure_leads_to_its_row() -> None:
    assert find_metric("truth") is METRICS["truth"]
    assert find_metric("fd_dino@models/dino") is SET_METRICS["fd_dino"]
    assert find_metric("reward/pickscore") is None


def mean_red(samples: Samples) -> torch.Tensor:
    return samples.images[:, :, 0].flatten(1).mean(1)


def test_a_metric_enters_with_one_function_and_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    row = MetricEntry(
        name="redness",
        target=f"{__name__}:mean_red",
        summary="how red images are",
        unit="share of full red",
        span="[0, 1]",
        family="statistics",
        direction="neither",
        source="this test",
    )
    monkeypatch.setitem(vars(METRICS), "entries", (*METRICS.entries, row))
    metric = build_prompt_metric("redness")
    assert metric.facts is find_metric("redness") is row
    assert metric.per_prompt(Samples(images=IMAGES, prompts=["a"])).item() == pytest.approx(IMAGES[:, :, 0].mean())
    assert metric_facts(row)[:3] == ("redness", "how red images are", "share of full red")


@pytest.mark.parametrize("registry", [METRICS, SET_METRICS], ids=lambda registry: registry.kind)
def test_the_table_in_the_documents_says_what_the_catalogue_says(registry: Registry[MetricEntry]) -> None:
    rows = [f"| `{name}` | {' | '.join(rest)} |" for name, *rest in map(metric_facts, registry.entries)]
    assert "\n".join(rows) in DOCUMENT.read_text(encoding="utf-8")


def test_the_features_in_the_documents_are_those_of_the_catalogue() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    for entry in FEATURES.entries:
        facts = (entry.summary, entry.width, entry.size or "none", entry.licence, entry.source)
        assert f"| `{entry.name}` | {' | '.join(facts)} |" in text


def test_a_run_has_no_reference_set() -> None:
    assert build_prompt_metric("clip_diversity").facts.name == "clip_diversity"
    with pytest.raises(ConfigError, match="recall_clip"):
        build_prompt_metric("recall_clip")
