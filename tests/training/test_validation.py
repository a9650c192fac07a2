"""Runs that keep pairs out of the training and measure them at every evaluation."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seedpo.cli.cache_builds import build_cache
from seedpo.errors import ConfigError, DataError, RunFolderError
from seedpo.models.policy import PipelinePolicy
from seedpo.scenes.pairs import preference_table
from seedpo.settings import build_config
from seedpo.training.configuration import resolve_config
from seedpo.training.run import train
from seedpo.training.settings import RewardRunConfig
from seedpo.training.validation import build_divided_pairs
from tests.small_runs import metrics, small
from tests.training.toys import cpu_accelerator

EVALUATION = {"num_prompts": 1, "images_per_prompt": 1, "num_inference_steps": 1, "metrics": []}
SHARE = {"validation": 0.3, "validation_draws": 2}


def run(path: Path, *, resume: Any = None, **changes: Any) -> list[dict[str, Any]]:
    settings = {"max_steps": 2, "evaluate_every": 1, "checkpoint_every": 1, "evaluation": EVALUATION} | changes
    config = resolve_config("diffusion-dpo", small(path.parent, **settings))
    train(config, path, resume=resume, accelerator=cpu_accelerator(config), progress=False)
    return metrics(path)


def figures(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in line.items() if key.startswith("validation/")}
        for line in lines
        if line["kind"] == "evaluation"
    ]


class TestRuns:
    def test_a_share_is_measured_at_every_evaluation_and_exactly_on_resume(self, tmp_path: Path) -> None:
        lines = run(tmp_path / "whole", pairs=SHARE)
        measured = figures(lines)
        assert [len(line) for line in measured] == [9, 9, 9]
        assert measured[0]["validation/accuracy"] == 0.5
        assert measured[1]["validation/loss"] != measured[2]["validation/loss"]
        run(tmp_path / "resumed", pairs=SHARE, max_steps=1)
        assert run(tmp_path / "resumed", pairs=SHARE, resume="latest") == lines

    def test_measuring_a_set_of_its_own_does_not_change_the_training(self, tmp_path: Path) -> None:
        others = tmp_path / "others.parquet"
        pq.write_table(preference_table(count=6, seed=2), others)
        train_lines = [
            [line for line in run(tmp_path / name, pairs=pairs) if line["kind"] == "train"]
            for name, pairs in (("plain", {}), ("measured", {"validation": str(others)}))
        ]
        assert train_lines[0] == train_lines[1]

    def test_a_run_is_not_resumed_on_another_validation_set(self, tmp_path: Path) -> None:
        others, rows = tmp_path / "others.parquet", preference_table(count=6, seed=2)
        pq.write_table(rows, others)
        run(tmp_path / "run", max_steps=1, pairs={"validation": str(others)})
        keys: dict[str, Any] = {"pairs": {"validation": str(others)}, "resume": "latest"}
        for table, change in ((rows.slice(0, 5), "rows 6 -> 5"), (rows.take(list(range(5, -1, -1))), "order of rows")):
            pq.write_table(table, others)
            with pytest.raises(RunFolderError, match=rf"pairs\.validation = .*others\.parquet .*{change}"):
                run(tmp_path / "run", **keys)
        pq.write_table(rows, others)
        assert [line["step"] for line in run(tmp_path / "run", **keys) if line["kind"] == "train"] == [1, 2]

    def test_a_cache_serves_validation_pairs_too(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        live = run(tmp_path / "live", pairs=SHARE)
        cached = {"pairs": SHARE, "cache": {"folder": str(tmp_path / "cache")}, "evaluation": EVALUATION}
        build_cache(resolve_config("diffusion-dpo", small(tmp_path, **cached)), progress=False)
        monkeypatch.setattr(PipelinePolicy, "encode_images", lambda policy, images: pytest.fail("encoded live"))
        assert run(tmp_path / "cached", **cached) == live


class TestPairs:
    def test_prompts_stay_on_one_side(self, tmp_path: Path) -> None:
        divided = build_divided_pairs(resolve_config("diffusion-dpo", small(tmp_path, pairs=SHARE)))
        assert divided.validation is not None
        prompts = [{side.prompt(row) for row in range(len(side))} for side in (divided.training, divided.validation)]
        assert not prompts[0] & prompts[1]
        assert all(prompts)

    @pytest.mark.parametrize(
        ("keys", "training", "validation"),
        [
            ({}, 5, 2),
            ({"validation_split": "test"}, 5, 3),
            ({"split": "test", "validation_split": "val"}, 3, 2),
        ],
    )
    def test_splits_of_one_folder(self, tmp_path: Path, keys: dict[str, str], training: int, validation: int) -> None:
        """The training never sees what a folder keeps for validation and testing."""
        config = small(tmp_path)
        table = pq.read_table(tmp_path / "pairs.parquet")
        rows = {"train": table.slice(0, 5), "validation": table.slice(5, 2), "test": table.slice(7, 3)}
        for split, part in rows.items():
            (tmp_path / "set" / split).mkdir(parents=True)
            pq.write_table(part, tmp_path / "set" / split / "0000.parquet")
        config |= {"data": str(tmp_path / "set")}
        held_out = f"{tmp_path}/set/"  # another name than that of the data
        divided = build_divided_pairs(
            resolve_config("diffusion-dpo", config | {"pairs": {"validation": held_out} | keys})
        )
        assert divided.validation is not None
        assert (len(divided.training), len(divided.validation)) == (training, validation)

    def test_shared_images_are_named(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        small(tmp_path)
        table = pq.read_table(tmp_path / "pairs.parquet").slice(0, 2)
        renamed = table.set_column(table.column_names.index("caption"), "caption", pa.array(["one", "other"]))
        pq.write_table(renamed, tmp_path / "others.parquet")
        with caplog.at_level(logging.WARNING):
            run(tmp_path / "run", max_steps=1, pairs={"validation": str(tmp_path / "others.parquet")})
        warnings = [record.getMessage() for record in caplog.records if "pairs.validation" in record.getMessage()]
        assert len(warnings) == 1
        assert "others.parquet" in warnings[0]
        assert "pairs.parquet" in warnings[0]


class TestRefusals:
    @pytest.mark.parametrize("share", [0.0, 1, 1.5, -0.1])
    def test_a_share_beyond_its_bounds(self, tmp_path: Path, share: float) -> None:
        with pytest.raises(ConfigError, match=r"pairs.validation"):
            resolve_config("diffusion-dpo", small(tmp_path, pairs={"validation": share}))

    def test_a_split_without_a_set(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"validation_split"):
            resolve_config("diffusion-dpo", small(tmp_path, pairs=SHARE | {"validation_split": "test"}))

    @pytest.mark.parametrize("method", ["d3po", "spo"])
    def test_online_methods(self, tmp_path: Path, method: str) -> None:
        with pytest.raises(ConfigError, match=rf"pairs.validation = 0.3: {method}"):
            resolve_config(method, small(tmp_path, pairs=SHARE))

    def test_the_training_set_itself(self, tmp_path: Path) -> None:
        keys = small(tmp_path)
        with pytest.raises(ConfigError, match=r"pairs.validation = .* trained on"):
            resolve_config("diffusion-dpo", keys | {"pairs": {"validation": keys["data"]}})

    def test_a_share_that_leaves_nothing(self, tmp_path: Path) -> None:
        config = resolve_config("diffusion-dpo", small(tmp_path, pairs={"validation": 1e-6}))
        with pytest.raises(DataError, match=r"pairs.validation = 1e-06 leaves"):
            build_divided_pairs(config)

    def test_a_preference_model_has_its_own_keys(self) -> None:
        with pytest.raises(ConfigError, match=r"held_out_share"):
            build_config(RewardRunConfig, {"pairs": SHARE})
