from __future__ import annotations

import shlex
from itertools import pairwise
from pathlib import Path

import yaml

from seedpo.reports.families import Family, group
from seedpo.reports.runs import Run, read_runs
from seedpo.reports.tables import configuration_differences, environments, recipe, result_table
from tests.reports.synthetic import Fate, write_run


def runs_of(tmp_path: Path) -> tuple[tuple[Run, ...], Family]:
    folders = [
        write_run(tmp_path / "base", samples=False, fate=Fate(hack=0.9)),
        write_run(tmp_path / "see", samples=False, gamma=3.0, seed=4, fate=Fate(hack=0.1, rise=0.4), finished=False),
    ]
    runs = read_runs(folders)
    (family,) = group(runs)
    return runs, family


def test_first_best_and_last_with_intervals_and_the_best_run_marked(tmp_path: Path) -> None:
    _, family = runs_of(tmp_path)
    table = result_table(family)
    base, see = table.rows
    cells = dict(zip(table.header, zip(base, see, strict=True), strict=True))
    first, best, last = (cells[f"truth {which}"] for which in ("first", "best", "last"))
    assert first[0].text == "−0.100"
    assert first[0].small == (), "all runs start alike"
    assert best[0].small == ("[−0.032, 0.068]", "step 30")
    assert (last[0].best, last[1].best) == (False, True)
    assert (cells["proxy last"][0].best, cells["proxy last"][1].best) == (True, False)
    assert not any(cell.best for cell in first), "before training there is no best"
    assert [cell.text for cell in (*base[:6], base[-1])] == ["base", "0", "250", "250", "0", "100", "12 min 34 s"]
    assert [cell.text for cell in (*see[:6], see[-1])] == ["see", "3", "250", "1000", "4", "100 (unfinished)", "–"]


def test_several_seeds_get_a_row_with_mean_and_range(tmp_path: Path) -> None:
    (family,) = group(read_runs([write_run(tmp_path / str(seed), seed=seed, samples=False) for seed in (0, 1)]))
    table = result_table(family)
    first, second, mean = table.rows
    assert table.summaries == {2}
    last = table.header.index("truth last")
    low, high = sorted((first[last].text, second[last].text), reverse=True)
    assert mean[last].small == (f"[{low}, {high}]",)
    assert mean[4].text == "2 seeds"


def test_the_only_run_is_not_called_best(tmp_path: Path) -> None:
    (family,) = group(read_runs([write_run(tmp_path / "run", samples=False)]))
    assert not any(cell.best for row in result_table(family).rows for cell in row)


def test_the_commands_rebuild_every_configuration(tmp_path: Path) -> None:
    runs, family = runs_of(tmp_path)
    found = recipe(family, "diffusion-dpo.yaml")
    assert yaml.safe_load(found.yaml) == runs[0].config
    assert found.commands[0] == "seedpo train diffusion-dpo.yaml --out runs/base"
    words = shlex.split(found.commands[1])
    changes = dict(word.split("=", 1) for before, word in pairwise(words) if before == "--set")
    rebuilt = dict(runs[0].config) | {key: yaml.safe_load(value) for key, value in changes.items()}
    assert rebuilt == runs[1].config


def test_only_keys_that_differ_are_listed(tmp_path: Path) -> None:
    runs, _ = runs_of(tmp_path)
    table = configuration_differences(runs)
    assert table is not None
    assert table.header == ("run", "gamma", "seed")
    assert [[cell.text for cell in row] for row in table.rows] == [["base", "0.0", "0"], ["see", "3.0", "4"]]
    assert configuration_differences(runs[:1]) is None


def test_environments_name_runs_only_where_they_differ(tmp_path: Path) -> None:
    runs, _ = runs_of(tmp_path)
    table = environments(runs)
    assert table is not None
    assert ("torch", "2.13.0") in [tuple(cell.text for cell in row) for row in table.rows]
    (tmp_path / "see" / "environment.json").write_text('{"torch": "2.11.0"}')
    table = environments(read_runs([tmp_path / "base", tmp_path / "see"]))
    assert table is not None
    assert {row[0].text: row[1].text for row in table.rows}["torch"] == "2.13.0 (base); 2.11.0 (see)"
