"""`seedpo score`: tables of scores, and what is wrong with what is given, in one line."""

from __future__ import annotations

import csv
import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image

from seedpo.cli import main
from seedpo.data.image_list import ListedImage
from seedpo.data.tables.score_table import ScoreTable
from seedpo.evaluation.score import ScoreSummary, Scoring, as_sum, score_images, summarise_scores
from seedpo.rewards import named as named_rewards
from seedpo.rewards.named import build_reward
from seedpo.rewards.remote.http_reward import http_reward
from seedpo.rewards.settings import RewardDefinitions
from seedpo.rewards.user_code import user_reward
from seedpo.settings import build_config
from tests.rewards.remote.stand_in import Answer, as_json, offers, scored, served
from tests.scenes.drawings import some_drawings

PROMPTS = ["a large red circle on a gray background", "a small blue star on a white background"]
CODE = """
import torch
def bright(images, prompts):
    return images.mean((1, 2, 3))
def length(images, prompts):
    return torch.tensor([float(len(prompt)) for prompt in prompts]) + images.mean((1, 2, 3))
def late_nan(images, prompts):
    return torch.where(images.mean((1, 2, 3)) < 0.5, torch.nan, 1.0)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: `im` as `seedpo sample` leaves it, `loose` without prompts, and `score_code.py`."""
    monkeypatch.chdir(tmp_path)
    drawings = (some_drawings(PROMPTS * 2).permute(0, 2, 3, 1) * 255.0).round().byte().numpy()
    index = []
    for number, drawing in enumerate(drawings):
        for place in ("im", "loose"):
            (tmp_path / place).mkdir(exist_ok=True)
            Image.fromarray(np.ascontiguousarray(drawing)).save(tmp_path / place / f"{number + 8}.png")
        index.append({"file": f"{number + 8}.png", "prompt": PROMPTS[number % 2]})
    (tmp_path / "im" / "index.json").write_text(json.dumps(index))
    (tmp_path / "score_code.py").write_text(CODE)
    user_reward.cache_clear()
    sys.modules.pop("score_code", None)
    return tmp_path


def score(*arguments: Any) -> int:
    try:
        main(["score", *map(str, arguments), "--quiet"])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def refusal(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    assert score(*arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ")
    return line


class TestTables:
    def test_one_column_for_each_reward(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert score("im", "--reward", "jpeg-compressibility, score_code:bright", "--out", "out/s.parquet") == 0
        table = pq.read_table("out/s.parquet")
        assert table.column_names == ["file", "prompt", "jpeg-compressibility", "score_code:bright"]
        assert table["file"].to_pylist() == [f"im/{number}.png" for number in (8, 9, 10, 11)]
        assert table["prompt"].to_pylist() == PROMPTS * 2
        images = [Image.open(file).convert("RGB") for file in table["file"].to_pylist()]
        for name in table.column_names[2:]:
            assert table[name].to_pylist() == build_reward(name)(images, PROMPTS * 2).tolist()
        assert [path.name for path in Path("out").iterdir()] == ["s.parquet"]
        said = capsys.readouterr().out
        assert said.startswith("4 images of 2 prompts\njpeg-compressibility: mean -")
        assert "table: out/s.parquet" in said

    def test_every_format_holds_the_same(self) -> None:
        for ending in ("parquet", "csv", "jsonl"):
            assert score("im", "--reward", "score_code:bright", "--out", f"s.{ending}") == 0
        wanted = np.array(pq.read_table("s.parquet")["score_code:bright"].to_pylist(), dtype=np.float32)
        with Path("s.csv").open(encoding="utf-8") as file:
            assert np.array_equal([np.float32(row["score_code:bright"]) for row in csv.DictReader(file)], wanted)
        lines = [json.loads(line) for line in Path("s.jsonl").read_text().splitlines()]
        assert np.array_equal([np.float32(line["score_code:bright"]) for line in lines], wanted)
        assert list(lines[0]) == ["file", "prompt", "score_code:bright"]

    def test_batches_change_nothing_and_hold_no_more_than_they_should(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[int] = []
        build = build_reward

        def counting(name: str, **settings: Any) -> Any:
            reward = build(name, **settings)
            whole = reward.reward
            reward.reward = lambda images, prompts: (seen.append(len(images)), whole(images, prompts))[1]
            return reward

        monkeypatch.setattr("seedpo.evaluation.score.build_reward", counting)
        assert score("im", "--reward", "score_code:bright", "--out", "a.csv", "--batch-size", 3) == 0
        assert seen == [3, 1]
        assert score("im", "--reward", "score_code:bright", "--out", "b.csv") == 0
        assert Path("a.csv").read_text() == Path("b.csv").read_text()

    def test_prompts_from_a_file_or_one_for_all(self) -> None:
        Path("p.txt").write_text("\n".join(PROMPTS * 2))
        assert score("loose", "--prompts", "p.txt", "--reward", "score_code:length", "--out", "a.csv") == 0
        assert score("im", "--reward", "score_code:length", "--out", "b.csv") == 0
        assert Path("a.csv").read_text().replace("loose/", "im/") == Path("b.csv").read_text()
        assert score("loose/*.png", "--prompt", "", "--reward", "score_code:length", "--out", "c.csv") == 0

    def test_models_are_let_go_one_after_another(self, monkeypatch: pytest.MonkeyPatch) -> None:
        order: list[str] = []
        build, forget = build_reward, named_rewards.forget
        monkeypatch.setattr(
            "seedpo.evaluation.score.build_reward", lambda name, **s: (order.append(f"+{name}"), build(name, **s))[1]
        )
        monkeypatch.setattr(
            "seedpo.evaluation.score.forget", lambda name, sums: (order.append(f"-{name}"), forget(name, sums))
        )
        assert score("im", "--reward", "scenes-scorer,score_code:bright", "--out", "a.csv") == 0
        assert order == ["+scenes-scorer", "-scenes-scorer", "+score_code:bright", "-score_code:bright"]


class TestSums:
    def test_as_sum_prints_what_a_configuration_takes(self, capsys: pytest.CaptureFixture[str]) -> None:
        names = "scenes-scorer,jpeg-compressibility"
        assert score("im", "--reward", names, "--out", "a.parquet", "--as-sum") == 0
        said = capsys.readouterr().out
        Path("sum.yaml").write_text(said[said.index("rewards:") :])
        terms = yaml.safe_load(Path("sum.yaml").read_text())["rewards"]["mix"]["terms"]
        assert list(terms) == names.split(",")
        assert score("im", "--reward", f"mix,{names}", "--config", "sum.yaml", "--out", "b.parquet") == 0
        table = pq.read_table("b.parquet").to_pydict()
        wanted = sum((np.array(table[name]) - terms[name]["mean"]) / terms[name]["std"] for name in names.split(","))
        np.testing.assert_allclose(table["mix"], wanted, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(np.mean(table["mix"]), 0.0, atol=1e-4)  # z-scored on these very images

    def test_a_term_of_two_sums_is_scored_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tree = {"a": {"terms": {"score_code:bright": 1}}, "b": {"terms": {"a": 2, "score_code:bright": 1}}}
        Path("sums.yaml").write_text(yaml.safe_dump({"method": "spo", "rewards": tree}))
        built: list[str] = []
        build = build_reward
        monkeypatch.setattr(
            "seedpo.evaluation.score.build_reward", lambda name, **s: (built.append(name), build(name, **s))[1]
        )
        assert score("im", "--reward", "b,score_code:bright", "--config", "sums.yaml", "--out", "a.parquet") == 0
        assert built == ["score_code:bright"]
        table = pq.read_table("a.parquet").to_pydict()
        assert list(table)[2:] == ["b", "score_code:bright"]
        np.testing.assert_allclose(table["b"], 3.0 * np.array(table["score_code:bright"]), rtol=1e-6)


class TestSummaries:
    def table(self, values: list[float], prompts: list[str]) -> ScoreTable:
        images = [ListedImage(path=Path(f"{row}.png"), prompt=prompt) for row, prompt in enumerate(prompts)]
        return ScoreTable(images=images, scores={"r": torch.tensor(values)})

    def test_mean_deviation_best_and_worst(self) -> None:
        (summary,) = summarise_scores(self.table([1.0, 3.0, 2.0], ["a", "b", "c"]))
        assert (summary.mean, summary.std) == (2.0, 1.0)
        assert summary.best == (Path("1.png"), 3.0)
        assert summary.worst == (Path("0.png"), 1.0)

    def test_the_interval_takes_the_images_of_a_prompt_together(self) -> None:
        values = [0.0] * 20 + [1.0] * 20
        (together,) = summarise_scores(self.table(values, ["a"] * 20 + ["b"] * 20))
        (apart,) = summarise_scores(self.table(values, [str(row) for row in range(40)]))
        (same,) = summarise_scores(self.table(values, ["a"] * 40))
        assert together.interval == (0.0, 1.0)
        assert apart.interval is not None
        assert apart.interval == same.interval
        half = 1.96 * 0.5 / 40**0.5
        np.testing.assert_allclose(apart.interval, (0.5 - half, 0.5 + half), atol=0.03)

    def test_one_image_has_no_interval(self) -> None:
        (summary,) = summarise_scores(self.table([1.0], ["a"]))
        assert summary.interval is None
        assert summary.std is None
        with pytest.raises(ValueError, match="score more images"):
            as_sum([summary])


def test_a_sum_repeats_the_rewards_on_servers_that_it_names() -> None:
    rewards = {"far": {"http": {"url": "http://a.example", "reward": "b"}}, "mix": {"terms": {"far": 1.0}}}
    definitions = build_config(RewardDefinitions, {"rewards": rewards}).rewards
    path = Path("0.png")
    summaries = [
        ScoreSummary(name=name, mean=1.0, interval=None, std=2.0, best=(path, 1.0), worst=(path, 1.0))
        for name in ("far", "mix")
    ]
    written = yaml.safe_load(as_sum(summaries, definitions))
    assert written == {
        "rewards": {"far": rewards["far"], "mix": {"terms": {"far": {"weight": 1.0, "mean": 1.0, "std": 2.0}}}}
    }


class TestRefusals:
    def test_in_one_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        plain = ["--out", "s.csv"]
        for arguments, part in (
            (["im", "--reward", "pickscor", *plain], "'pickscore'"),
            (["im", "--reward", ",", *plain], "--reward"),
            (["im", "--reward", "scenes-truth", "--out", "s.txt"], ".parquet, .csv, .jsonl"),
            (["im", "--reward", "scenes-truth", "--out", "score_code.py/s.csv"], "score_code.py"),
            (["nowhere", "--reward", "scenes-truth", *plain], "nowhere"),
            (["loose", "--reward", "scenes-truth", *plain], "loose/8.png"),
            (["score_code.py", "--prompt", "a", "--reward", "scenes-scorer", *plain], "score_code.py"),
            (["im", "--reward", "scenes-truth", *plain, "--precision", "fp8"], "'fp8'"),
            (["im", "--reward", "scenes-truth", *plain, "--device", "gpu"], "--device gpu"),
            (["im", "--reward", "scenes-truth", *plain, "--config", "c.yaml"], "c.yaml"),
            (["im", "--prompt", "a", "--prompts", "p.txt", "--reward", "scenes-truth", *plain], "--prompts"),
        ):
            assert part in refusal(capsys, *arguments), arguments
            assert not Path("s.csv").exists()

    def test_counts_that_differ(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("p.txt").write_text("one\ntwo\nthree\n")
        said = refusal(capsys, "loose", "--prompts", "p.txt", "--reward", "scenes-scorer", "--out", "s.csv")
        assert "p.txt holds 3 prompts for 4 images; the first without one is loose/11.png" in said

    def test_a_file_that_exists(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("s.csv").write_text("mine")
        arguments = ["im", "--reward", "score_code:bright", "--out", "s.csv"]
        assert "s.csv exists already" in refusal(capsys, *arguments)
        assert Path("s.csv").read_text() == "mine"
        assert score(*arguments, "--overwrite") == 0
        assert Path("s.csv").read_text().startswith("file,prompt,")

    def test_a_size_that_a_reward_cannot_read(self, capsys: pytest.CaptureFixture[str]) -> None:
        Image.new("RGB", (40, 32)).save("loose/9.png")
        said = refusal(capsys, "loose", "--prompt", PROMPTS[0], "--reward", "scenes-truth", "--out", "s.csv")
        assert "loose/9.png has 40 x 32 pixels; scenes-truth reads images of 32 x 32 only" in said

    def test_nan_names_its_file_and_the_command_goes_on(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Image.new("RGB", (32, 32), "black").save("loose/10.png")
        rewards = "jpeg-compressibility,score_code:late_nan"
        arguments = ["loose", "--prompt", "x", "--out", "s.csv", "--batch-size", 3, "--reward"]
        assert "error: loose/10.png: reward score_code:late_nan " in refusal(capsys, *arguments, rewards)
        assert not Path("s.csv").exists()
        monkeypatch.setattr("seedpo.rewards.jpeg.jpeg_sizes", None)  # not asked again
        assert score(*arguments, "jpeg-compressibility") == 0
        assert len(Path("s.csv").read_text().splitlines()) == 5
        assert not Path("s.partial.jsonl").exists()

    def test_scores_of_other_images(self, capsys: pytest.CaptureFixture[str]) -> None:
        Image.new("RGB", (32, 32), "black").save("loose/10.png")
        arguments = ["loose", "--reward", "jpeg-compressibility,score_code:late_nan", "--out", "s.csv"]
        refusal(capsys, *arguments, "--prompt", "x")
        said = refusal(capsys, *arguments, "--prompt", "y")
        assert "s.partial.jsonl holds the scores of an unfinished command with other images" in said
        Image.new("RGB", (32, 32), "white").save("loose/10.png")
        assert "with other images" in refusal(capsys, *arguments, "--prompt", "x")
        assert score(*arguments, "--prompt", "x", "--overwrite") == 0


class TestServers:
    """A server that dies in the middle; it is asked with batches of two images, four in all."""

    def interrupted(self, capsys: pytest.CaptureFixture[str], *, later: str) -> list[int]:
        """How many images are sent by the command that fails, and by the same one with a server of another version."""
        version, alive = "v1", 1
        sent: list[int] = []

        def answer(_method: str, path: str, body: Any) -> Answer:
            if path == "/rewards":
                return offers(version=version)
            if len(sent) == alive:
                return as_json({"error": "out of memory"}, 500)
            sent.append(len(body["images"]))
            return as_json(scored(body, lambda _file, _prompt: float(version[1:]), version=version))

        with served(answer) as server:
            definition = f"{{url: '{server.url}', reward: size, retries: 0}}"
            Path("far.yaml").write_text(f"rewards: {{far: {{http: {definition}}}}}\n")
            arguments = ["im", "--config", "far.yaml", "--reward", "far", "--out", "s.csv", "--batch-size", 2]
            said = refusal(capsys, *arguments)
            assert said.startswith(f"error: reward far at {server.url}: it answered 500: out of memory (1 try); start")
            version, alive = later, 9
            http_reward.cache_clear()
            assert score(*arguments) == 0
        return sent

    def test_the_same_command_goes_on(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.interrupted(capsys, later="v1") == [2, 2]

    def test_scores_of_two_versions_are_not_mixed(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.interrupted(capsys, later="v2") == [2, 2, 2]
        with Path("s.csv").open(encoding="utf-8") as file:
            assert {row["far"] for row in csv.DictReader(file)} == {"2.0"}


class TestUnreadable:
    @pytest.fixture(autouse=True)
    def broken(self) -> None:
        """One file is no image, another breaks off."""
        Path("loose/9.png").write_text("no image")
        Path("loose/10.png").write_bytes(Path("loose/10.png").read_bytes()[:-40])
        Path("p.txt").write_text("eight\nnine\nten\neleven\n")

    def test_an_error_names_it_before_anything_is_scored(
        self, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        said = refusal(capsys, "loose", "--prompts", "p.txt", "--reward", "score_code:bright", "--out", "s.csv")
        assert "loose/9.png is not an image that can be read (no known format: 8 bytes" in said
        assert not [record for record in caplog.records if "rewards" in record.name], "the reward was loaded"

    def test_they_can_be_left_out_and_prompts_stay_with_their_images(self, capsys: pytest.CaptureFixture[str]) -> None:
        arguments = ["--prompts", "p.txt", "--reward", "score_code:bright,jpeg-compressibility", "--out", "s.csv"]
        assert score("loose", *arguments, "--skip-unreadable", "--batch-size", 2) == 0
        with Path("s.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert [(row["file"], row["prompt"]) for row in rows] == [("loose/8.png", "eight"), ("loose/11.png", "eleven")]
        said = capsys.readouterr().out
        assert "left out, since they cannot be read: 2\n" in said
        assert "loose/10.png is not an image that can be read" in said

    def test_what_was_left_out_is_an_error_once_that_is_not_asked_for(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("loose/9.png").write_bytes(Path("loose/8.png").read_bytes())
        arguments = ["loose", "--prompts", "p.txt", "--out", "s.csv", "--reward", "jpeg-compressibility"]
        failing = [*arguments[:-1], "jpeg-compressibility,score_code:fails", "--skip-unreadable"]
        with Path("score_code.py").open("a") as file:
            file.write("def fails(images, prompts):\n    return torch.tensor([torch.nan] * len(prompts))\n")
        assert "score_code:fails" in refusal(capsys, *failing)
        assert "loose/10.png is not an image that can be read" in refusal(capsys, *arguments)
        assert score(*arguments, "--skip-unreadable") == 0

    def test_nothing_left(self, capsys: pytest.CaptureFixture[str]) -> None:
        said = refusal(
            capsys,
            "loose/9.png",
            "--prompt",
            "",
            "--reward",
            "score_code:bright",
            "--out",
            "s.csv",
            "--skip-unreadable",
        )
        assert "none of 1 images can be read" in said


def test_from_python(folder: Path) -> None:
    images = [ListedImage(path=folder / "im" / "8.png", prompt=PROMPTS[0])]
    table = score_images(images, ["score_code:bright"], Scoring(progress=False))
    assert table.scores["score_code:bright"].shape == (1,)
