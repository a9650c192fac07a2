"""`seedpo data label`: which pairs a reward makes, how it agrees with people, and what is wrong in one line."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor

from seedpo.cli import main
from seedpo.data.convert import conversion_config
from seedpo.data.pairs.sets import PairSet
from seedpo.data.reading import load_pairs
from seedpo.data.settings import PairsConfig
from seedpo.data.tables.kept_scores import KeptBatch, KeptScores
from seedpo.errors import ConfigError
from seedpo.evaluation.label import Labelling, judged_candidates, label
from seedpo.evaluation.score import Scoring, kept_scores
from seedpo.rewards.user_code import user_reward
from seedpo.settings import build_config
from seedpo.training.run import train
from seedpo.training.settings import RunConfig
from tests.data.layouts.published import LAYOUTS, number_in
from tests.small_runs import few_pairs, metrics, small
from tests.training.toys import cpu_accelerator

CODE = """
import torch
calls = []
def bright(images, prompts):
    calls.append(list(prompts))
    return (images.mean((1, 2, 3)) * 255.0).round()
def same(images, prompts):
    return torch.zeros(len(prompts))
def late_nan(images, prompts):
    values = bright(images, prompts)
    return torch.where(values > 150, torch.nan, values)
"""

FOX, TREE = "a red fox, at night", "an old tree"
GREYS = {"a": 10, "b": 20, "c": 20, "d": 100, "e": 200}


def write_greys(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name, grey in GREYS.items():
        Image.new("RGB", (8, 8), (grey,) * 3).save(folder / f"{name}.png")


def pair(chosen: str, rejected: str, probability: float = 1.0, prompt: str = FOX) -> dict[str, Any]:
    names = {"chosen": f"im/{chosen}.png", "rejected": f"im/{rejected}.png"}
    return {"prompt": prompt, **names, "chosen_probability": probability}


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: `pairs.jsonl` with images in `im`, `drawn` as `seedpo sample` leaves it, and a reward."""
    monkeypatch.chdir(tmp_path)
    write_greys(tmp_path / "im")
    rows = [pair("d", "a"), pair("a", "e"), pair("b", "c"), pair("a", "d", 0.5), pair("e", "d", 0.7, TREE)]
    write_lines(tmp_path / "pairs.jsonl", rows)
    write_greys(tmp_path / "drawn")
    index = [{"file": f"{name}.png", "prompt": TREE if name == "e" else FOX} for name in GREYS]
    (tmp_path / "drawn" / "index.json").write_text(json.dumps(index))
    (tmp_path / "label_code.py").write_text(CODE)
    user_reward.cache_clear()
    sys.modules.pop("label_code", None)
    return tmp_path


def run(*arguments: Any, options: Sequence[str] = ()) -> int:
    try:
        main([*options, "data", "label", *map(str, arguments), "--quiet"])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def labelled(out: str = "out.parquet") -> list[tuple[str, str, str, float, float]]:
    """Prompt, names of the images, probability and margin of each pair."""
    return [
        (row["prompt"], row["chosen"]["path"][0], row["rejected"]["path"][0], row["chosen_probability"], row["margin"])
        for row in pq.read_table(out).to_pylist()
    ]


def refusal(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    capsys.readouterr()
    assert run(*arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ")
    assert not Path("out.parquet").exists()
    return line


class TestRelabelled:
    def test_the_reward_chooses(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("pairs.jsonl", "--reward", "label_code:bright", "--out", "out.parquet") == 0
        expected = [(FOX, "d", "a", 1.0, 90.0), (FOX, "e", "a", 1.0, 190.0), (FOX, "d", "a", 1.0, 90.0)]
        assert labelled() == [*expected, (TREE, "e", "d", 1.0, 100.0)]
        out = capsys.readouterr().out
        assert "5 judged, 4 written, 1 ties left out (equal scores)" in out
        assert not Path("out.partial.jsonl").exists()

    def test_ties_and_the_least_margin(self) -> None:
        command = ("pairs.jsonl", "--reward", "label_code:bright", "--out", "out.parquet", "--min-margin", "95")
        assert run(*command) == 0
        assert [row[1:] for row in labelled()] == [("e", "a", 1.0, 190.0), ("e", "d", 1.0, 100.0)]
        assert run(*command, "--ties", "keep", "--overwrite") == 0
        assert [row[1:] for row in labelled()] == [
            ("d", "a", 0.5, 90.0),
            ("e", "a", 1.0, 190.0),
            ("b", "b", 0.5, 0.0),
            ("d", "a", 0.5, 90.0),
            ("e", "d", 1.0, 100.0),
        ]

    def test_an_image_is_scored_once_for_each_prompt(self) -> None:
        assert run("pairs.jsonl", "--reward", "label_code:bright", "--out", "out.parquet") == 0
        prompts = [prompt for call in sys.modules["label_code"].calls for prompt in call]
        assert (prompts.count(FOX), prompts.count(TREE)) == (4, 2), "b and c are one file"

    def test_pairs_of_all_images_of_a_prompt(self) -> None:
        assert run("pairs.jsonl", "--reward", "label_code:bright", "--out", "out.parquet", "--pairs", "best-worst") == 0
        assert labelled() == [(FOX, "e", "a", 1.0, 190.0), (TREE, "e", "d", 1.0, 100.0)]

    def test_agreement_with_people(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("pairs.jsonl", "--reward", "label_code:bright", "--out", "out.parquet", "--json") == 0
        values = json.loads(capsys.readouterr().out)
        agreement = values["agreement"]
        assert (agreement["tied"], agreement["all"]["pairs"], agreement["all"]["share"]) == (1, 4, 2.5 / 4)
        assert agreement["by_margin"] == []
        assert (values["pairs"], values["written"], values["ties"], values["images"]) == (5, 4, 1, 6)

    def test_it_is_counted_by_margin(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Against a plain count: the label is right with a chance that grows with the margin."""
        random = np.random.default_rng(0)
        greys = random.choice(256, (60, 2)).tolist()
        rows, gaps, right = [], [], []
        for number, (first, second) in enumerate(greys):
            for side, grey in (("x", first), ("y", second)):
                Image.new("RGB", (8, 8), (grey,) * 3).save(folder / "im" / f"{side}{number}.png")
            x_wins = random.random() < 0.5 + (first - second) / 512
            rows.append(
                pair(*((f"x{number}", f"y{number}") if x_wins else (f"y{number}", f"x{number}")), 1.0, str(number % 20))
            )
            gaps.append(abs(first - second))
            right.append(0.5 if first == second else float((first > second) == x_wins))
        write_lines(folder / "many.jsonl", rows)
        assert run("many.jsonl", "--reward", "label_code:bright", "--out", "out.parquet", "--json") == 0
        agreement = json.loads(capsys.readouterr().out)["agreement"]
        assert agreement["all"]["share"] == pytest.approx(np.mean(right))
        assert agreement["all"]["interval"][0] < np.mean(right) < agreement["all"]["interval"][1]
        order = sorted(range(60), key=lambda number: gaps[number])
        for place, part in enumerate(agreement["by_margin"]):
            rows_of_part = order[15 * place : 15 * place + 15]
            assert part["pairs"] == 15
            assert part["share"] == pytest.approx(np.mean([right[row] for row in rows_of_part]))
            assert part["margins"] == [gaps[rows_of_part[0]], gaps[rows_of_part[-1]]]
        assert len(agreement["by_margin"]) == 4

    @pytest.mark.parametrize("name", ["pick_a_pic", "rejected_list", "hpdv2_test_all", "image_reward_db", "d3po"])
    def test_any_layout(self, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "set").mkdir()
        case = LAYOUTS[name](tmp_path / "set")
        config = conversion_config(PairsConfig.model_validate(case.settings))
        pairs = load_pairs(str(case.source), config)
        assert isinstance(pairs, PairSet)

        def number(images: Any, prompts: Any) -> Tensor:
            pixels = [torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 for image in images]
            return torch.tensor([float(number_in(image)) for image in pixels])

        monkeypatch.setattr("seedpo.evaluation.score.build_reward", lambda *names, **options: number)
        monkeypatch.setattr("seedpo.evaluation.score.forget", lambda *names: None)
        found = judged_candidates(pairs)
        labelling = Labelling(reward="label_code:bright", bad_rows_limit=1.0)
        kept = KeptScores(tmp_path / "kept.jsonl", {})
        label(found, labelling, Scoring(progress=False), tmp_path / "out.parquet", kept)
        read = load_pairs(str(tmp_path / "out.parquet"), PairsConfig(resolution=16))
        numbers = [tuple(map(number_in, read[row].images)) for row in range(len(read))]
        assert all(chosen > rejected for chosen, rejected in numbers)
        wanted = {
            (item.prompt, max(item.chosen, item.rejected), min(item.chosen, item.rejected)) for item in case.pairs
        }
        assert wanted <= {(read.prompt(row), *numbers[row]) for row in range(len(read))}
        assert len(numbers) <= len(case.pairs) + case.ties


class TestImages:
    def test_best_and_worst_of_a_prompt(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("drawn", "--reward", "label_code:bright", "--out", "out.parquet") == 0
        assert labelled() == [(FOX, "d", "a", 1.0, 90.0)]
        out = capsys.readouterr().out
        assert "images without a partner: 1" in out
        assert "agrees" not in out

    def test_every_two(self) -> None:
        assert run("drawn", "--reward", "label_code:bright", "--out", "out.parquet", "--pairs", "all") == 0
        expected = [
            tuple(sorted(names, key=lambda name: -GREYS[name])) for names in combinations("abd", 2)
        ]  # b and c are one file
        assert [row[1:3] for row in labelled()] == expected
        command = ("drawn", "--reward", "label_code:bright", "--out", "out.parquet", "--pairs", "all", "--overwrite")
        assert run(*command, "--min-margin", "85") == 0
        assert [row[1:] for row in labelled()] == [("d", "a", 1.0, 90.0)]

    def test_prompts_from_a_file(self) -> None:
        Path("prompts.csv").write_text("file,prompt\n" + "".join(f"{name}.png,{TREE}\n" for name in GREYS))
        assert run("im/*.png", "--prompts", "prompts.csv", "--reward", "label_code:bright", "--out", "out.parquet") == 0
        assert labelled() == [(TREE, "e", "a", 1.0, 190.0)]

    def test_a_weighted_sum(self) -> None:
        Path("sum.yaml").write_text("rewards: {dark: {terms: {label_code:bright: -2.0}}}\n")
        command = ("drawn", "--config", "sum.yaml", "--reward", "dark", "--out", "out.parquet")
        assert run(*command, options=("--code", ".")) == 0
        assert labelled() == [(FOX, "a", "d", 1.0, 180.0)]


class TestInterrupted:
    COMMAND = ("pairs.jsonl", "--reward", "label_code:bright", "--batch-size", "2")

    def test_it_goes_on_and_writes_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert run(*self.COMMAND, "--out", "whole.parquet") == 0
        add = KeptScores.add

        def killed(kept: KeptScores, reward: str, start: int, batch: KeptBatch) -> None:
            add(kept, reward, start, batch)
            if start == 2:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(KeptScores, "add", killed)
            assert run(*self.COMMAND, "--out", "out.parquet") != 0
        assert not Path("out.parquet").exists()
        with Path("out.partial.jsonl").open("a") as file:
            file.write('{"reward": "label_code:bright", "start": 4, "sco')
        calls = sys.modules["label_code"].calls
        calls.clear()
        assert run(*self.COMMAND, "--out", "out.parquet") == 0
        assert len(calls) == 1, "one batch of three was left"
        assert Path("out.parquet").read_bytes() == Path("whole.parquet").read_bytes()
        assert not Path("out.partial.jsonl").exists()

    def test_scores_of_other_code_are_not_mixed(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        refusal(capsys, *self.COMMAND, "--out", "out.parquet", "--min-margin", "500")
        (folder / "label_code.py").write_text(CODE.replace("return (images", "return -(images"))
        user_reward.cache_clear()
        sys.modules.pop("label_code", None)
        assert run(*self.COMMAND, "--out", "out.parquet") == 0
        assert [row[1:3] for row in labelled()] == [("a", "d"), ("a", "e"), ("a", "d"), ("d", "e")]

    def test_no_pair_left_costs_no_scoring_again(self, capsys: pytest.CaptureFixture[str]) -> None:
        line = refusal(capsys, *self.COMMAND, "--out", "out.parquet", "--min-margin", "500")
        assert "none of 5 pairs is left: all are ties; lower --min-margin, or give --ties keep" in line
        sys.modules["label_code"].calls.clear()
        assert run(*self.COMMAND, "--out", "out.parquet") == 0
        assert not sys.modules["label_code"].calls

    def test_another_command(self, capsys: pytest.CaptureFixture[str]) -> None:
        refusal(capsys, *self.COMMAND, "--out", "out.parquet", "--min-margin", "500")
        other = ("pairs.jsonl", "--reward", "label_code:bright", "--out", "out.parquet")
        assert "unfinished command with other batch_size" in refusal(capsys, *other)
        assert run(*other, "--overwrite") == 0


class TestWrongInputs:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("pairs.jsonl", "--reward", "nothing"), "unknown reward 'nothing'"),
            (("none.jsonl", "--reward", "label_code:bright"), "none.jsonl"),
            (("pairs.jsonl", "--reward", "label_code:late_nan"), "pairs.jsonl line 2: rejected: reward label_code"),
            (("pairs.jsonl", "--reward", "label_code:same"), "none of 5 pairs is left: all are ties"),
            (("im", "--reward", "label_code:bright"), "im"),
            (("im/*.png", "--reward", "label_code:bright", "--prompts", "none.txt"), "none.txt does not exist"),
            (("pairs.jsonl", "--reward", "scenes-truth"), "reads images of 32 x 32 only"),
            (("pairs.jsonl", "--reward", "label_code:bright", "--config", "none.yaml"), "none.yaml"),
            (("pairs.jsonl", "--reward", "label_code:bright", "--set", "pairs.from_scores=likes"), "likes"),
            (("pairs.jsonl", "--reward", "label_code:bright", "--device", "cuda:77"), "--device cuda:77"),
        ],
    )
    def test_one_line_each(self, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str) -> None:
        assert said in refusal(capsys, *arguments, "--out", "out.parquet")
        assert not Path("out.partial.jsonl").exists() or "late_nan" in str(arguments) or "same" in str(arguments)

    def test_where_it_cannot_be_written(self, capsys: pytest.CaptureFixture[str]) -> None:
        command = ("pairs.jsonl", "--reward", "label_code:bright", "--out")
        assert "must end in .parquet" in refusal(capsys, *command, "out.jsonl")
        Path("there.parquet").write_text("x")
        assert "exists already" in refusal(capsys, *command, "there.parquet")
        assert "lies where im is read" in refusal(capsys, "im", *command[1:], "im/out.parquet")

    def test_images_that_cannot_be_read(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        whole = (folder / "im/e.png").read_bytes()
        command = ("pairs.jsonl", "--reward", "label_code:bright", "--out", "out.parquet")
        for broken, why in ((b"no image", "not an image"), (whole[:-30], "not an image"), (None, "No such file")):
            (folder / "im/e.png").unlink()
            if broken is not None:
                (folder / "im/e.png").write_bytes(broken)
            line = refusal(capsys, *command, "--overwrite")
            assert "2 of 5 pairs cannot be used, and pairs.bad_rows_limit = 0.01 allows fewer; nothing is writ" in line
            assert "pairs.jsonl line 2: rejected" in line
            assert why in line
            assert run(*command, "--overwrite", "--set", "pairs.bad_rows_limit=0.5") == 0
            assert [row[1:] for row in labelled()] == [("d", "a", 1.0, 90.0)] * 2
            assert "that cannot be used: " in capsys.readouterr().out
            Path("out.parquet").unlink()
            (folder / "im/e.png").write_bytes(whole)

    def test_a_drawn_image_that_cannot_be_read(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (folder / "drawn/d.png").write_bytes(b"no image")
        line = refusal(capsys, "drawn", "--reward", "label_code:bright", "--out", "out.parquet")
        assert "1 of 4 images cannot be used" in line

    def test_a_stream(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("seedpo.data.reading.load_pairs", lambda *a, **k: object())
        line = refusal(capsys, "hub:owner/name", "--reward", "label_code:bright", "--out", "out.parquet")
        assert "seedpo data convert hub:owner/name --out FILE.parquet" in line


@pytest.mark.parametrize("reward", ["scenes-scorer", "scenes-truth"])
def test_scenes_end_to_end(tmp_path: Path, reward: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Labels of a reward, and a run that trains on them."""
    out = tmp_path / "labelled.parquet"
    assert run(few_pairs(tmp_path), "--reward", reward, "--out", out) == 0
    assert "agrees with the labels there were: " in capsys.readouterr().out
    pairs = load_pairs(str(out), PairsConfig())
    rows = pq.read_table(out).to_pylist()
    assert len(pairs) == len(rows) > 5
    assert all(row["margin"] > 0.0 for row in rows)
    config = build_config(RunConfig, small(tmp_path), {"method": "diffusion-dpo", "data": str(out), "max_steps": 1})
    train(config, tmp_path / "run", accelerator=cpu_accelerator(config), progress=False)
    assert [line["step"] for line in metrics(tmp_path / "run") if line["kind"] == "train"] == [1]


def test_which_scores_are_kept_for_later(tmp_path: Path) -> None:
    found = judged_candidates(load_pairs("pairs.jsonl", conversion_config(PairsConfig())))
    out, batch = tmp_path / "new.parquet", KeptBatch(version="v1", scores=[1.0])
    kept_scores(out, found.images, Scoring()).add("r", 0, batch)
    assert kept_scores(out, found.images, Scoring(progress=False, device="cpu")).batches == {("r", 0): batch}
    with pytest.raises(ConfigError, match="with other batch_size; repeat"):
        kept_scores(out, found.images, Scoring(batch_size=3))
    with pytest.raises(ConfigError, match="with other images; repeat"):
        kept_scores(out, found.images[1:], Scoring())
