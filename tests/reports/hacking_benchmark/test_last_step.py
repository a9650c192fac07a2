from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from seedpo.reports.hacking_benchmark.analysis import End, ends, read_measured
from seedpo.reports.hacking_benchmark.results import write_results
from seedpo.training.sweeps.hacking_grid import Setting, settings_of
from tests.reports.hacking_benchmark.worlds import GRID, write_runs


def temperature_and_a_loss(setting: Setting, seed: int, proxy: float) -> float:
    """Truth grows with the temperature; the term costs 2, and 1 more or less from seed to seed, but at the start."""
    cost = 2.0 + (seed - 1) if setting.role == "see" else 0.0
    return setting.weight - cost * (proxy > 0)


def found_in(folder: Path, *, seeds: int = 3) -> dict[tuple[str, str], End]:
    measured, _ = read_measured(folder, settings_of(GRID), seeds=seeds)
    return {(one.rival, one.name): one for one in ends(measured)}


def test_the_term_is_held_against_its_control_and_the_base_method(tmp_path: Path) -> None:
    found = found_in(write_runs(tmp_path, {"truth": temperature_and_a_loss}))
    assert set(found) == {(rival, name) for rival in ("its control", "base at its beta") for name in ("proxy", "truth")}
    control = found["its control", "truth"]
    assert control.settings == 5
    assert control.by_seed == pytest.approx({0: -1.0, 1: -2.0, 2: -3.0})
    half = 4.303 / 3**0.5
    assert (control.low, control.mean, control.high) == pytest.approx((-2 - half, -2.0, -2 + half), abs=1e-6)
    assert control.verdict == "not shown", "three seeds that scatter so much show nothing"
    higher = sum(a - beta for beta, a in ((10, 20), (10, 30), (10, 40), (20, 40), (20, 80))) / 5
    base = found["base at its beta", "truth"]
    assert base.by_seed == pytest.approx({0: higher - 1.0, 1: higher - 2.0, 2: higher - 3.0})
    assert base.verdict == "higher"
    assert found["its control", "proxy"].by_seed == {0: 0.0, 1: 0.0, 2: 0.0}


def test_a_seed_in_which_a_run_is_missing_is_left_out(tmp_path: Path) -> None:
    folder = write_runs(tmp_path, {"truth": temperature_and_a_loss})
    shutil.rmtree(folder / "base-beta=80_seed=1")
    found = found_in(folder)
    assert set(found["its control", "truth"].by_seed) == {0, 2}
    assert set(found["base at its beta", "truth"].by_seed) == {0, 1, 2}


def test_the_page_and_the_numbers(tmp_path: Path) -> None:
    write_runs(tmp_path / "spo", {"truth": lambda setting, seed, proxy: setting.weight - 3.0 * (setting.role == "see")})
    write_results(tmp_path, {"spo": GRID}, seeds=3, command="seedpo bench hacking --out OUT")
    page = (tmp_path / "hacking.md").read_text()
    assert "| its control | truth | −3.00 | [−3.00, −3.00] | −3.00, −3.00, −3.00 | lower |" in page
    assert "| its control | proxy | 0 | [0, 0] | 0, 0, 0 | not shown |" in page
    rows = json.loads((tmp_path / "hacking.json").read_text())["methods"]["spo"]["ends"]
    row = next(one for one in rows if (one["rival"], one["name"]) == ("its control", "truth"))
    assert (row["mean"], row["by_seed"], row["settings"]) == (-3.0, {"0": -3.0, "1": -3.0, "2": -3.0}, 5)


def test_two_seeds_show_nothing(tmp_path: Path) -> None:
    write_runs(
        tmp_path / "spo",
        {"truth": lambda setting, seed, proxy: setting.weight - 3.0 * (setting.role == "see")},
        seeds=2,
    )
    write_results(tmp_path, {"spo": GRID}, seeds=2, command="seedpo bench hacking --out OUT")
    assert "| −3.00, −3.00 | not shown |" in (tmp_path / "hacking.md").read_text()
