"""``seedpo frontier`` on what must be drawn first: checkpoints of another trainer, and runs under sampling controls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from seedpo.cli.checkpoints import checkpoints_in, is_readable, own_names
from seedpo.cli.main import main
from seedpo.models.policy import PipelinePolicy, build_policy
from seedpo.settings import merge
from seedpo.training.configuration import resolve_config
from seedpo.training.run_folder import create_run_folder
from tests.models.tiny import move
from tests.reports.frontier.made import rows, write
from tests.small_runs import SMALL

DRAWING = ["--prompts", "scenes-evaluation", "--num-prompts", "5", "--images", "2", "--steps", "1", "--guidance", "1"]
MEASURES = ["--model", "scenes", "--rewards", "scenes-scorer,scenes-plain", "--metrics", "pairwise_diversity"]


def small_policy(**keys: Any) -> PipelinePolicy:
    return build_policy(resolve_config("diffusion-dpo", merge(SMALL, keys)))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LoRAs of three checkpoints, each further from the base model than the one before."""
    folder, policy = tmp_path_factory.mktemp("output") / "theirs", small_policy()
    for step in (20, 100, 200):
        move(policy, scale=0.05)
        policy.save(folder / f"checkpoint-{step}")
    return folder


def run_command(*words: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["frontier", *words])
    assert not stop.value.code


def page(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "frontier.json").read_text())
    return content


class TestCheckpoints:
    def test_a_folder_of_loras(self, theirs: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        words = [str(theirs), *MEASURES, *DRAWING, "--out", str(out)]
        run_command(*words, "--strength", "0.5", "--best-of", "2")
        found = page(out)
        (run,) = found["settings"]
        assert run["label"] == "theirs"
        evaluations = run["evaluations"]["0"]
        assert [row["step"] for row in evaluations["reward/scenes-scorer"]] == [0, 20, 100, 200]
        assert len({row["value"] for row in evaluations["reward/scenes-plain"]}) == 4
        assert found["figures"] == {
            "proxy": "reward/scenes-scorer",
            "held_out": ["reward/scenes-plain"],
            "diversity": ["pairwise_diversity"],
        }
        assert {row["kind"]: row["names"] for row in found["free"]} == {
            "best of n": ["as it is", "best-of-2"],
            "strength": ["strength-0", "strength-0.5", "as it is"],
        }
        assert [row["label"] for row in found["free"]] == [
            "theirs at step 0: best of n", "theirs at step 200: strength", "theirs at step 200: best of n",
        ]  # fmt: skip
        best = found["free"][0]["evaluations"]["0"]["reward/scenes-scorer"]
        assert best[1]["value"] > best[0]["value"], "the reward picks"
        images = {path: path.stat().st_mtime_ns for path in (out / "evaluation").rglob("*.png")}
        run_command(*words)
        assert {path: path.stat().st_mtime_ns for path in (out / "evaluation").rglob("*.png")} == images
        again = page(out)["settings"][0]["evaluations"]
        assert again == run["evaluations"]

    def test_they_are_found_by_their_steps(self, theirs: Path, tmp_path: Path) -> None:
        assert [Path(name).name for name in checkpoints_in(str(theirs))] == [
            "checkpoint-20", "checkpoint-100", "checkpoint-200",
        ]  # fmt: skip
        assert checkpoints_in(str(theirs / "checkpoint-20")) == [str(theirs / "checkpoint-20")]
        assert checkpoints_in("owner/name") == ["owner/name"]
        assert not is_readable(theirs)
        assert is_readable(tmp_path / "scores.csv")


def test_a_run_is_drawn_as_its_evaluations_are(tmp_path: Path) -> None:
    keys = {"seed": 3, "evaluation": {"rewards": ["scenes-scorer", "scenes-plain"], "num_prompts": 5}}
    config = resolve_config("spo", merge(SMALL, keys))
    run, policy = create_run_folder(tmp_path / "mine", config), build_policy(config)
    move(policy, scale=0.1)
    policy.save(run.path / config.weights_folder)
    lines = [
        {"kind": "evaluation", "step": step, "reward/scenes-scorer": 12 + step, "reward/scenes-plain": 15 - step}
        for step in range(3)
    ]
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run.finished.write_text('{"step": 2, "seconds": 1}')
    run_command(str(run.path), "--mixing", "1,2", "--out", str(tmp_path / "out"))
    found = page(tmp_path / "out")
    assert [(row["label"], list(row["evaluations"])) for row in found["settings"]] == [("mine", ["3"])]
    (free,) = found["free"]
    assert (free["label"], free["names"]) == (
        "mine at step 2: mixing", ["strength-0", "mixing-2", "mixing-1", "as it is"],
    )  # fmt: skip
    assert set(free["evaluations"]["3"]) >= {"reward/scenes-scorer", "reward/scenes-plain", "pairwise_diversity"}
    images = sorted((tmp_path / "out" / "free" / "mine" / "images" / "end").glob("*.png"))
    assert len(images) == 10, "five prompts of two images, as the run says"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["{theirs}"], ("checkpoint-20", "--rewards")),
        (["{theirs}", "--rewards", "scenes-scorer"], ("checkpoint-20", "--model")),
        (["nowhere", "--rewards", "scenes-scorer"], ("nowhere",)),
        (["{table}", "--strength", "0.5"], ("--strength", "checkpoint")),
        (["{table}", "--strength", "half"], ("--strength", "half")),
        (["{table}", "--held-out", "jugde"], ("jugde", "judge")),
    ],
)
def test_what_cannot_be_drawn_is_named_in_one_line(
    words: list[str], parts: tuple[str, ...], theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"{theirs}": str(theirs), "{table}": str(write(tmp_path / "scores.csv", list(rows())))}
    with pytest.raises(SystemExit) as stop:
        main(["frontier", *(places.get(word, word) for word in words), *DRAWING, "--out", str(tmp_path / "out")])
    assert stop.value.code == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    for part in parts:
        assert part in last, part


def test_runs_whose_folders_have_one_name_are_told_apart() -> None:
    runs = [Path("/r/base/seed=0"), Path("/r/new/seed=0"), Path("/r/new/seed=1"), Path("/r/new/seed=0")]
    assert own_names(runs) == {
        "base-seed=0": runs[0],
        "new-seed=0": runs[1],
        "seed=1": runs[2],
    }
