from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from seedpo.core.losses import clipped_loss
from seedpo.reports.charts import curve_panels, frontier_panels, health_notes, health_panels
from seedpo.reports.families import Family, group
from seedpo.reports.runs import read_runs
from tests.reports.synthetic import write_run


def one_family(*folders: Path) -> Family:
    (family,) = group(read_runs(folders))
    return family


def test_clipping_confines_the_loss_as_known_for_d3po() -> None:
    low, high = clipped_loss(0.1, 0.1)
    assert (round(low, 3), round(high, 3)) == (0.683, 0.703)
    assert low < math.log(2) < high


def test_proxy_truth_and_diversity_come_first(tmp_path: Path) -> None:
    family = one_family(write_run(tmp_path / "run", samples=False))
    assert [(panel.title, panel.note) for panel in curve_panels(family)] == [
        ("Proxy", "reward scenes-scorer"),
        ("Truth", "utility of the simulated annotator"),
        ("Free spread", "standard deviation relative to the data"),
        ("Pairwise diversity", "RMS pixel difference"),
        ("Attribute accuracy", "share of images"),
    ]
    assert [panel.marks for panel in curve_panels(family)] == [(), (), ((1.0, "data"),), (), ()]
    assert [panel.title for panel in frontier_panels(family)] == ["Truth against proxy", "Free spread against proxy"]
    line = frontier_panels(family)[0].lines[0]
    assert line.steps == list(range(0, 101, 10))
    assert line.x[0] == pytest.approx(0.2)
    assert 10 in line.named, "the last step is written beside its marker"


def test_health_is_averaged_into_few_points_and_drawn_per_run(tmp_path: Path) -> None:
    family = one_family(*(write_run(tmp_path / f"{seed}", seed=seed, gamma=1.0, samples=False) for seed in (0, 1)))
    panels = {panel.title: panel for panel in health_panels(family)}
    assert {"Loss", "Margin of implicit rewards", "Saturated share", "Clipped share"} <= set(panels)
    loss = panels["Loss"].lines
    assert len(loss) == 2
    assert len(loss[0].x) == 50
    assert loss[0].x[0] == 1.5
    offset = panels["Offset of the entropy term"].lines[0]
    assert offset.high[0] - offset.y[0] == pytest.approx(0.25)
    assert all(panel.note for panel in panels.values())


def test_thresholds_of_the_alarms_are_drawn_as_the_run_has_them(tmp_path: Path) -> None:
    def marks(name: str, **changes: Any) -> dict[str, Any]:
        family = one_family(write_run(tmp_path / name, samples=False, method="spo", changes=changes))
        return {panel.title: panel.marks for panel in health_panels(family)}

    usual = marks("usual")
    assert usual["Saturated share"] == ((0.5, "alarm"),)
    assert usual["Clipped share"] == ((0.9, "alarm"),)
    changed = marks("changed", alarms={"saturation": {"threshold": 0.25}, "clipping": {"threshold": None}})
    assert (changed["Saturated share"], changed["Clipped share"]) == (((0.25, "alarm"),), ())


def test_errors_are_drawn_as_their_growth_over_the_reference_s(tmp_path: Path) -> None:
    """Of means: single steps draw their own times, so that a mean of ratios would be that of the quietest."""
    folder = write_run(tmp_path / "run", samples=False)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        if line["kind"] == "train":
            drawn = 0.1 if line["step"] % 2 else 0.9
            line |= {"error/policy_chosen": 1.5 * drawn, "error/reference_chosen": drawn}
            line |= {"error/policy_rejected": 3.0 * drawn if line["step"] % 2 else drawn}
            line |= {"error/reference_rejected": drawn}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    panels = {panel.title: panel for panel in health_panels(one_family(folder))}
    winner, loser = (panels[f"Growth of the error, {side} images"] for side in ("chosen", "rejected"))
    assert winner.lines[0].y == pytest.approx([0.5] * 50)
    assert winner.marks == ((0.5, "alarm"),)
    assert loser.lines[0].y == pytest.approx([(3 * 0.1 + 0.9) / 1.0 - 1] * 50)


def test_a_chart_says_what_its_own_objective_looks_like(tmp_path: Path) -> None:
    def notes(method: str) -> dict[str, str]:
        family = one_family(write_run(tmp_path / method, method=method, samples=False))
        return {panel.title: panel.note for panel in health_panels(family)}

    usual, others = notes("diffusion-dpo"), {method: notes(method) for method in ("kto", "dgpo", "mapo", "spo")}
    assert "memorised" in usual["Accuracy in training"]
    assert not any("memorised" in note["Accuracy in training"] for note in others.values())
    assert others["mapo"]["Margin of implicit rewards"] != usual["Margin of implicit rewards"]


def test_a_clip_of_ratios_to_the_roll_out_says_nothing_of_the_loss(tmp_path: Path) -> None:
    assert health_notes(one_family(write_run(tmp_path / "run", method="flow-grpo", beta=0.004, samples=False))) == []


def test_alarms_are_notes(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", samples=False)
    (folder / "alarms.jsonl").write_text('{"step": 30, "name": "spike", "message": "loss leapt"}\n')
    assert health_notes(one_family(folder)) == ["run: alarm spike at step 30: loss leapt."]


def test_a_clipped_base_is_explained(tmp_path: Path) -> None:
    family = one_family(write_run(tmp_path / "run", method="d3po", beta=0.1, samples=False))
    (note,) = health_notes(family)
    assert "[0.683, 0.703]" in note
    wide = one_family(write_run(tmp_path / "wide", method="spo", beta=10.0, samples=False))
    assert health_notes(wide) == [], "a range of [0.126, 2.133] looks flat to nobody"


def test_runs_without_metrics_have_no_charts(tmp_path: Path) -> None:
    family = one_family(write_run(tmp_path / "run", evaluations=(), samples=False))
    assert curve_panels(family) == frontier_panels(family) == health_panels(family) == []
