from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from seedpo.errors import RunFolderError
from seedpo.run_folders import RunFolder
from seedpo.training.run_folder import (
    clear_beginning,
    create_run_folder,
    is_beginning,
    locked,
    require_same_settings,
    warn_of_new_versions,
)
from seedpo.training.settings import RunConfig
from tests.training.toys import toy_config


def test_a_new_folder_holds_config_and_environment(tmp_path: Path) -> None:
    config = toy_config(gamma=0.5)
    folder = create_run_folder(tmp_path / "runs" / "a", config)
    names = sorted(path.name for path in folder.path.iterdir())
    assert names == ["checkpoints", "config.yaml", "environment.json", "samples"]
    assert RunFolder.open(folder.path).read_config(RunConfig) == config
    assert "packages" in json.loads(folder.environment.read_text())
    assert folder.finished_step() is None


def test_an_empty_folder_may_be_used(tmp_path: Path) -> None:
    assert create_run_folder(tmp_path, toy_config()).config_file.is_file()


def test_a_folder_with_something_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("text")
    with pytest.raises(RunFolderError, match="is not empty; it holds no checkpoint to resume; choose another --out"):
        create_run_folder(tmp_path, toy_config())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_folder_with_a_checkpoint_says_how_to_go_on(tmp_path: Path) -> None:
    folder = create_run_folder(tmp_path, toy_config())
    (folder.checkpoints / "checkpoint-000002").mkdir()
    with pytest.raises(RunFolderError, match="continue with --resume latest, or choose another --out"):
        create_run_folder(tmp_path, toy_config())


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="is a file"):
        create_run_folder(tmp_path / "file", toy_config())
    with pytest.raises(RunFolderError, match="cannot be written"):
        create_run_folder(tmp_path / "file" / "below", toy_config())


def test_only_run_folders_are_opened(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"config\.yaml"):
        RunFolder.open(tmp_path)


def test_weights_lie_where_the_adapter_says() -> None:
    assert toy_config().weights_folder == "adapter"
    assert toy_config(adapter="full").weights_folder == "network"


def test_only_free_keys_may_differ() -> None:
    before = toy_config()
    free = toy_config(max_steps=9, log_every=2, checkpoint_every=3, checkpoints_limit=5, evaluate_every=1)
    require_same_settings(before, free, Path("runs/a"))
    now = toy_config(beta=0.7, optimizer={"beta2": 0.5}, max_steps=9)
    message = r"runs/a was made with other settings: beta \(0\.1 -> 0\.7\), optimizer\.beta2 \(0\.999 -> 0\.5\); give"
    with pytest.raises(RunFolderError, match=message):
        require_same_settings(before, now, Path("runs/a"))


def test_a_folder_is_used_by_one_process_at_a_time(tmp_path: Path) -> None:
    folder = create_run_folder(tmp_path, toy_config())
    message = "another process is training into"
    with locked(folder), pytest.raises(RunFolderError, match=message), locked(RunFolder(tmp_path)):
        raise AssertionError
    with locked(folder):
        pass


def test_new_versions_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = create_run_folder(tmp_path, toy_config())
    with caplog.at_level(logging.WARNING):
        warn_of_new_versions(folder)
        assert not caplog.records
        environment = json.loads(folder.environment.read_text())
        environment["packages"]["torch"] = "1.0"
        folder.environment.write_text(json.dumps(environment))
        warn_of_new_versions(folder)
    assert "torch 1.0 -> " in caplog.text


BEGINNING = (
    "samples/",
    "checkpoints/",
    "environment.json.tmp",
    "environment.json",
    "config.yaml.tmp",
    "config.yaml",
    ".lock",
    "evaluation.tmp/",
    "samples/step-000000.png.tmp",
    "samples/step-000000.png",
    "samples/step-000000.json",
    "samples/index.json",
    "samples/scores-000000.json",
    "metrics.jsonl",
    "alarms.jsonl",
    "checkpoints/checkpoint-000002.tmp/",
)
"""What a run writes until its first checkpoint, in this order."""


class TestBeginning:
    @pytest.mark.parametrize("count", range(len(BEGINNING) + 1))
    def test_a_run_killed_before_its_first_checkpoint_leaves_nothing_to_resume(
        self, tmp_path: Path, count: int
    ) -> None:
        folder, config = RunFolder(tmp_path / "run"), toy_config()
        whole = create_run_folder(tmp_path / "whole", config)
        folder.path.mkdir()
        for name in BEGINNING[:count]:
            place = folder.path / name
            if name.endswith("/"):
                place.mkdir()
            else:
                place.write_bytes(whole.config_file.read_bytes() if name == "config.yaml" else b"{")
        assert is_beginning(folder)
        clear_beginning(folder, config)
        create_run_folder(folder.path, config)
        names = {path.name for path in folder.path.iterdir()} - {".lock"}
        assert names == {path.name for path in whole.path.iterdir()}

    def test_an_absent_folder(self, tmp_path: Path) -> None:
        assert is_beginning(RunFolder(tmp_path / "absent"))
        clear_beginning(RunFolder(tmp_path / "absent"), toy_config())
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        "name", ["thesis.txt", "samples/holiday.png", "checkpoints/checkpoint-000002", "finished.json", "adapter"]
    )
    def test_anything_else_is_none(self, tmp_path: Path, name: str) -> None:
        folder = create_run_folder(tmp_path, toy_config())
        (tmp_path / name).write_text("mine")
        assert not is_beginning(folder)

    def test_a_file_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("mine")
        assert not is_beginning(RunFolder(tmp_path / "file"))

    def test_other_settings_and_another_process_are_refused(self, tmp_path: Path) -> None:
        folder = create_run_folder(tmp_path, toy_config())
        with pytest.raises(RunFolderError, match="gamma"):
            clear_beginning(folder, toy_config(gamma=0.5))
        with locked(folder), pytest.raises(RunFolderError, match="another process"):
            clear_beginning(folder, toy_config())
        assert folder.config_file.is_file()
