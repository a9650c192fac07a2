from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from seedpo.cli import demo
from seedpo.core.verdicts import Outcome
from seedpo.errors import ConfigError, SeedpoError
from seedpo.recipes.reading import read_recipe
from seedpo.reports.families import group
from seedpo.reports.runs import read_runs
from seedpo.settings import build_config
from seedpo.training.configuration import resolve_config
from seedpo.training.run import train
from seedpo.training.settings import RunConfig
from seedpo.training.sweeps import demonstration, running
from tests.small_runs import metrics, small
from tests.training.test_crashes import child_environment

ROOT = Path(__file__).parents[2]

STAND_IN = """#!{python}
# Stands in for the trainer: notes how it was called, and finishes with an empty run folder or fails.
import json, pathlib, sys, time
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
with open("{calls}", "a") as file:
    file.write(json.dumps([sys.argv[1:], time.time()]) + chr(10))
out.mkdir(exist_ok=True)
if out.name in {failing}:
    sys.exit("CUDA is on holiday")
time.sleep({seconds})
(out / "finished.json").write_text("{{}}")
with open("{calls}", "a") as file:
    file.write(json.dumps([None, time.time()]) + chr(10))
"""


SHOWN = ("diffusion-dpo", "d3po", "spo")
EXAMPLES = ("hacking", "learning", "flow-learning", *SHOWN, *(f"flow-{name}" for name in SHOWN))


class StandIn:
    """Replaces the interpreter that the demo starts."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.calls = folder / "calls.jsonl"
        self.script = folder / "trainer"
        self.finish()
        monkeypatch.setattr(sys, "executable", str(self.script))
        monkeypatch.setattr(demo, "write_report", lambda runs, out: out)

    def finish(self, *, failing: tuple[str, ...] = (), seconds: float = 0.0) -> None:
        self.script.write_text(STAND_IN.format(python=self.python, calls=self.calls, failing=failing, seconds=seconds))
        self.script.chmod(0o755)

    python = sys.executable

    def started(self) -> list[list[str]]:
        """The arguments of each start."""
        return [arguments for arguments, _ in self._lines() if arguments is not None]

    def most_at_once(self) -> int:
        running = [0]
        for arguments, _ in sorted(self._lines(), key=lambda line: line[1]):
            running.append(running[-1] + (1 if arguments is not None else -1))
        return max(running)

    def _lines(self) -> list[Any]:
        return [json.loads(line) for line in self.calls.read_text().splitlines()] if self.calls.exists() else []


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    return StandIn(tmp_path, monkeypatch)


def names(runs: list[list[str]]) -> list[str]:
    return sorted(Path(arguments[arguments.index("--out") + 1]).name for arguments in runs)


def variants(example: str) -> list[str]:
    return ["base", "see", "control", *(["opinion"] if example == "hacking" else [])]


class TestRuns:
    @pytest.mark.parametrize("seeds", [1, 2])
    def test_base_see_and_control_for_every_example_and_a_term_for_the_hacked_one(self, seeds: int) -> None:
        runs = list(demo.demo_runs(seeds))
        assert sorted(run.name for run in runs) == sorted(
            f"{example}-{variant}-seed{seed}"
            for example in EXAMPLES
            for variant in variants(example)
            for seed in range(seeds)
        )
        assert all(run.keys["seed"] == int(run.name[-1]) for run in runs)

    @pytest.mark.parametrize("example", EXAMPLES)
    def test_variants_differ_in_the_weights_alone(self, example: str) -> None:
        """The control is the base method at the temperature of SEE: its beta' is SEE's a."""
        configs: dict[str, Mapping[str, Any]] = {
            run.name.split("-")[-2]: run.keys for run in demo.demo_runs() if run.name.rsplit("-", 2)[0] == example
        }
        resolved = {name: resolve_config(tree["method"], tree) for name, tree in configs.items()}
        base, see, control = resolved["base"], resolved["see"], resolved["control"]
        assert see.entropy_convention == "relative"
        assert base.gamma == control.gamma == 0.0 < see.gamma
        assert see.beta == base.beta
        assert control.beta == base.beta * (1 + see.gamma)
        for other in (see, control):
            changed = {key for key, value in other if value != getattr(base, key)}
            assert changed in ({"gamma"}, {"beta"})

    def test_every_run_is_a_valid_configuration_with_several_evaluations(self) -> None:
        for run in demo.demo_runs():
            config = resolve_config(run.keys["method"], run.keys)
            assert 0 < config.evaluate_every <= config.max_steps // 2
            assert config.evaluation.images_per_prompt >= 2


class TestRunning:
    def test_every_run_is_trained_with_its_settings(self, stand_in: StandIn, tmp_path: Path) -> None:
        out = tmp_path / "demo"
        assert demo.run_demo(out, processes=3) == out / "report.html"
        runs = {run.name: run for run in demo.demo_runs()}
        assert names(stand_in.started()) == sorted(
            f"{example}-{variant}-seed0" for example in demonstration.SHOWN for variant in variants(example)
        )
        for arguments in stand_in.started():
            name = names([arguments])[0]
            assert arguments == [
                "-P",
                "-m",
                "seedpo",
                "train",
                str(out / f"{name}.yaml"),
                "--out",
                str(out / name),
                "--quiet",
            ]
            assert read_recipe(out / f"{name}.yaml") == runs[name].keys
            assert (out / f"{name}.log").is_file()

    def test_no_more_processes_than_asked_for(self, stand_in: StandIn, tmp_path: Path) -> None:
        stand_in.finish(seconds=0.3)
        demo.run_demo(tmp_path / "demo", processes=2)
        assert stand_in.most_at_once() == 2

    def test_finished_runs_are_kept_unless_they_are_wanted_fresh(self, stand_in: StandIn, tmp_path: Path) -> None:
        out = tmp_path / "demo"
        demo.run_demo(out, processes=9)
        demo.run_demo(out, processes=9)
        assert len(stand_in.started()) == 10
        (out / "hacking-see-seed0" / "finished.json").unlink()
        demo.run_demo(out, processes=9)
        assert names(stand_in.started()[10:]) == ["hacking-see-seed0"]
        demo.run_demo(out, processes=9, fresh=True)
        assert len(stand_in.started()) == 21

    def test_some_runs_alone(self, stand_in: StandIn, tmp_path: Path) -> None:
        demo.run_demo(tmp_path / "demo", seeds=2, only=["spo-base", "d3po"], processes=9)
        assert names(stand_in.started()) == sorted(
            f"{name}-seed{seed}" for name in ("spo-base", "d3po-base", "d3po-see", "d3po-control") for seed in (0, 1)
        )
        with pytest.raises(ConfigError, match=r"--only dpo: the demonstration has no such run; there are .*spo-base"):
            demo.run_demo(tmp_path / "demo", only=["spo", "dpo"])

    def test_runs_with_other_settings_are_trained_anew(self, stand_in: StandIn, tmp_path: Path) -> None:
        out = tmp_path / "demo"
        demo.run_demo(out, processes=9)
        (out / "hacking-see-seed0.yaml").write_text("method: spo\nbeta: 1.0\n")
        demo.run_demo(out, processes=9)
        assert names(stand_in.started()[10:]) == ["hacking-see-seed0"]

    def test_interrupted_runs_go_on_and_broken_ones_start_anew(self, stand_in: StandIn, tmp_path: Path) -> None:
        out = tmp_path / "demo"
        (out / "spo-base-seed0" / "checkpoints" / "checkpoint-000001").mkdir(parents=True)
        (out / "spo-see-seed0" / "checkpoints").mkdir(parents=True)
        demo.run_demo(out, only=["spo"], processes=3)
        resumed = [arguments for arguments in stand_in.started() if "--resume" in arguments]
        assert names(resumed) == ["spo-base-seed0"]
        assert resumed[0][-2:] == ["--resume", "latest"]
        assert (out / "spo-base-seed0" / "checkpoints" / "checkpoint-000001").is_dir()
        assert not (out / "spo-see-seed0" / "checkpoints").exists()

    def test_a_failed_run_names_its_log(self, stand_in: StandIn, tmp_path: Path) -> None:
        stand_in.finish(failing=("hacking-see-seed0",))
        out = tmp_path / "demo"
        with pytest.raises(SeedpoError) as failure:
            demo.run_demo(out, processes=1)
        log = out / "hacking-see-seed0.log"
        assert str(failure.value) == f"the run hacking-see-seed0 failed; see {log}"
        assert "CUDA is on holiday" in log.read_text()

    def test_other_runs_are_stopped_when_one_fails(self, stand_in: StandIn, tmp_path: Path) -> None:
        stand_in.finish(failing=("hacking-base-seed0",), seconds=600)
        with pytest.raises(SeedpoError):
            demo.run_demo(tmp_path / "demo", processes=2)
        assert len(stand_in.started()) == 2


def test_a_real_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run of one step, in the process that the demo starts, and the report on it; then nothing is trained again."""
    settings = small(tmp_path, max_steps=1)
    monkeypatch.setattr(demonstration, "EXAMPLES", {"diffusion-dpo": settings | {"beta": 200.0, "gamma": 1.0}})
    monkeypatch.setattr(demonstration, "SHARED", {})
    monkeypatch.setattr(demo, "SHOWN", ("diffusion-dpo",))
    first = next(demo.demo_runs())
    monkeypatch.setattr(demo, "demo_runs", lambda seeds: iter([first]))
    for name, value in child_environment().items():
        monkeypatch.setenv(name, value)
    out = tmp_path / "demo"
    report = demo.run_demo(out, processes=1)
    run = out / "diffusion-dpo-base-seed0"
    assert [(line["kind"], line["step"]) for line in metrics(run)] == [
        ("evaluation", 0),
        ("train", 1),
        ("evaluation", 1),
    ]
    assert build_config(RunConfig, yaml.safe_load((run / "config.yaml").read_text())).evaluation.num_prompts == 2
    assert "<html" in report.read_text(encoding="utf-8")
    written = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    monkeypatch.setattr(running, "start", lambda *started: pytest.fail("trained again"))
    assert demo.run_demo(out, processes=1) == report
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == written


@pytest.mark.slow
def test_the_base_method_hacks_the_example_and_its_images_lose_the_prompt(tmp_path: Path) -> None:
    """With other seeds and on other processors truth falls by 1 to 2 while vividness rises by about 9."""
    run = next(run for run in demo.demo_runs() if run.name == "hacking-base-seed0")
    train(resolve_config("spo", run.keys), tmp_path / "run", progress=False)
    (family,) = group(read_runs([tmp_path / "run"]))
    (verdict,) = family.settings[0].verdicts
    assert verdict.outcome is Outcome.HACKING
    assert verdict.judge == "truth"
    assert verdict.fall > 0.8
    assert verdict.proxy_last > verdict.proxy_peak + 3
