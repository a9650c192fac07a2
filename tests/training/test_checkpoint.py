from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import SafetensorError

from seedpo.errors import RunFolderError
from seedpo.run_folders import DamagedCheckpoint, Manifest, RunFolder, read_manifest
from seedpo.training.checkpoint import Checkpoints
from tests.training.toys import cpu_accelerator, toy_config


def save(checkpoints: Checkpoints, step: int, fail: Exception | None = None) -> None:
    manifest = Manifest(
        step=step,
        pairs_seen=4 * step,
        seconds=1.5,
        processes=1,
        config=toy_config().model_dump(mode="json"),
        files={},
        reference="",
        inputs={},
    )

    def write_shared(folder: Path) -> None:
        (folder / "policy").mkdir()
        (folder / "policy" / "weights").write_text(f"weights of step {step}")
        if fail:
            raise fail

    def write_own(folder: Path) -> None:
        (folder / "rank-0.json").write_text("{}")

    checkpoints.write(
        manifest, accelerator=cpu_accelerator(toy_config()), write_shared=write_shared, write_own=write_own
    )


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(RunFolder(tmp_path), limit=2)


def names(checkpoints: Checkpoints) -> list[str]:
    return sorted(path.name for path in checkpoints.run.checkpoints.iterdir())


def test_the_manifest_comes_back_and_names_every_file(checkpoints: Checkpoints) -> None:
    save(checkpoints, 12)
    manifest = read_manifest(checkpoints.path(12))
    assert (manifest.step, manifest.pairs_seen, manifest.seconds, manifest.processes) == (12, 48, 1.5, 1)
    assert sorted(manifest.files) == ["policy/weights", "rank-0.json"]
    assert manifest.config["max_steps"] == 6
    assert checkpoints.newest_intact() == manifest


def test_old_ones_go_after_the_new_one_is_there(checkpoints: Checkpoints) -> None:
    for step in (8, 9, 10, 1_000_000):
        save(checkpoints, step)
    assert checkpoints.steps() == [10, 1_000_000]
    assert names(checkpoints) == ["checkpoint-000010", "checkpoint-1000000"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_leaves_what_was_there(checkpoints: Checkpoints, error: Exception) -> None:
    save(checkpoints, 1)
    save(checkpoints, 2)
    message = rf"no space left in {checkpoints.run.checkpoints} for the checkpoint of step 3; free some space; "
    message += rf"the last checkpoint is {checkpoints.path(2)}; continue with --resume latest"
    with pytest.raises(RunFolderError, match=message):
        save(checkpoints, 3, fail=error)
    assert names(checkpoints) == ["checkpoint-000001", "checkpoint-000002"]
    assert checkpoints.newest_intact().step == 2


@pytest.mark.parametrize("call", ["os.fsync", "os.replace"])
def test_a_disk_that_fills_up_late_leaves_what_was_there(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    save(checkpoints, 1)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(call, full)
        with pytest.raises(RunFolderError, match="no space left"):
            save(checkpoints, 2)
    assert names(checkpoints) == ["checkpoint-000001"]


def test_a_fault_while_writing_leaves_what_was_there(checkpoints: Checkpoints) -> None:
    with pytest.raises(ZeroDivisionError):
        save(checkpoints, 1, fail=ZeroDivisionError())
    assert names(checkpoints) == []
    assert checkpoints.describe_latest() == "no checkpoint was written yet"


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


DAMAGES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "bit flipped": ("policy/weights", flip_a_bit),
    "cut short": ("policy/weights", lambda path: path.write_bytes(path.read_bytes()[:-1])),
    "emptied": ("rank-0.json", lambda path: path.write_text("")),
    "missing": ("rank-0.json", lambda path: path.unlink()),
    "manifest missing": ("checkpoint.json", lambda path: path.unlink()),
    "manifest cut short": ("checkpoint.json", lambda path: path.write_text(path.read_text()[:40])),
    "manifest edited": (
        "checkpoint.json",
        lambda path: path.write_text(path.read_text().replace('"step": 2', '"step": 3')),
    ),
    "manifest of another kind": ("checkpoint.json", lambda path: path.write_text("[1]")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_named_and_the_one_before_is_used(
    checkpoints: Checkpoints, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(checkpoints, 1)
    save(checkpoints, 2)
    name, harm = DAMAGES[damage]
    harm(checkpoints.path(2) / name)
    with pytest.raises(DamagedCheckpoint):
        read_manifest(checkpoints.path(2))
    with caplog.at_level(logging.WARNING):
        assert checkpoints.newest_intact().step == 1
    assert str(checkpoints.path(2) / name) in caplog.text
    assert f"continues from {checkpoints.path(1)}" in caplog.text
    # The damaged one neither stands in the way of the next ones nor counts among those that are kept.
    assert names(checkpoints) == ["checkpoint-000001", "damaged-checkpoint-000002"]
    save(checkpoints, 2)
    assert checkpoints.newest_intact().step == 2


def test_without_an_intact_one_nothing_is_moved(checkpoints: Checkpoints) -> None:
    save(checkpoints, 1)
    save(checkpoints, 2)
    for step in (1, 2):
        (checkpoints.path(step) / "rank-0.json").unlink()
    with pytest.raises(RunFolderError, match=r"no checkpoint in .* is intact: .*000002.*; .*000001.*; choose another"):
        checkpoints.newest_intact()
    assert checkpoints.steps() == [1, 2]


def test_none_at_all_is_said(checkpoints: Checkpoints) -> None:
    with pytest.raises(RunFolderError, match=r"holds no checkpoint to resume \(see checkpoint_every\)"):
        checkpoints.newest_intact()
