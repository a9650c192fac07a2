"""What is uploaded, and what is not. A stand-in takes the place of the hub's client: no test uses the network."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from seedpo.cli import main
from seedpo.errors import ConfigError, RunFolderError, SeedpoError
from seedpo.publishing import push
from seedpo.publishing.push import push_run
from tests.publishing.handmade import base_folder, finished_run
from tests.small_runs import as_options, small

LORA = {"README.md", "config.yaml", "grid.png", "pytorch_lora_weights.safetensors"}
FULL = {"README.md", "config.yaml", "grid.png", "unet/config.json", "unet/diffusion_pytorch_model.safetensors"}


@dataclass
class StandIn:
    """Keeps what it is asked to upload."""

    made: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    failure: Exception | None = None

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        self.made.append({"repo_id": repo_id, "private": private, "exist_ok": exist_ok})

    def create_commit(self, repo_id: str, operations: list[Any], *, commit_message: str) -> None:
        if self.failure is not None:
            raise self.failure
        assert repo_id == self.made[-1]["repo_id"]
        self.messages.append(commit_message)
        for operation in operations:
            with operation.as_file() as file:
                self.files[operation.path_in_repo] = file.read()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    finished_run(tmp_path / "run", model=str(base_folder(tmp_path / "base", "sd15")))
    (tmp_path / "run" / "private.txt").write_text("not for others")
    return tmp_path / "run"


def test_only_the_results_are_uploaded_and_only_to_their_owner(run: Path) -> None:
    client = StandIn()
    assert push_run(run, "me/mine", client=client) == "https://huggingface.co/me/mine"
    assert client.made == [{"repo_id": "me/mine", "private": True, "exist_ok": True}]
    assert set(client.files) == LORA
    assert len(client.messages) == 1
    for name in LORA - {"pytorch_lora_weights.safetensors"}:
        assert client.files[name] == (run / name).read_bytes()
    assert client.files["pytorch_lora_weights.safetensors"] == next((run / "adapter").iterdir()).read_bytes()
    assert b'load_lora_weights("me/mine")' in client.files["README.md"]


def test_a_whole_unet(tmp_path: Path) -> None:
    finished_run(tmp_path / "run", model=str(base_folder(tmp_path / "base", "sd15")), adapter="full")
    client = StandIn()
    push_run(tmp_path / "run", "me/mine", private=False, license="mit", base_model="owner/base", client=client)
    assert client.made[0]["private"] is False
    assert set(client.files) == FULL
    assert b"license: mit" in client.files["README.md"]
    assert b"base_model: owner/base" in client.files["README.md"]
    assert str(tmp_path).encode() not in client.files["unet/config.json"]


def test_a_card_that_was_edited_is_kept(run: Path) -> None:
    (run / "README.md").write_text("my own words")
    client = StandIn()
    push_run(run, "me/mine", client=client)
    assert client.files["README.md"] == b"my own words"


class TestFailures:
    def test_a_refusal_is_one_line_with_the_way_on(self, run: Path) -> None:
        before = {path: path.read_bytes() for path in (run / "adapter").iterdir()}
        for failure in (OSError("401\nno token"), ConnectionError("no route"), RuntimeError("anything")):
            with pytest.raises(
                SeedpoError, match=r"could not be uploaded to me/mine \(.*\); the run is as it was: log"
            ) as told:
                push_run(run, "me/mine", client=StandIn(failure=failure))
            assert "\n" not in str(told.value)
            assert f"seedpo push {run} me/mine" in str(told.value)
        assert {path: path.read_bytes() for path in (run / "adapter").iterdir()} == before

    def test_a_name_that_is_no_repository(self, run: Path) -> None:
        client = StandIn()
        for name in ("mine", "me/mine@v2", "me/", "a/b/c"):
            with pytest.raises(ConfigError, match=repr(name)):
                push_run(run, name, client=client)
        assert client.made == []

    def test_a_run_that_did_not_finish(self, run: Path, tmp_path: Path) -> None:
        (run / "adapter").rename(tmp_path / "elsewhere")
        client = StandIn()
        with pytest.raises(RunFolderError, match="holds no trained weights"):
            push_run(run, "me/mine", client=client)
        assert client.made == []
        assert not (run / "README.md").exists()


class TestCommands:
    """Of one process, on the command line."""

    @pytest.fixture(autouse=True)
    def stand_in(self, monkeypatch: pytest.MonkeyPatch) -> StandIn:
        client = StandIn()
        monkeypatch.setattr(push, "HfApi", lambda: client)
        return client

    def call(self, *arguments: str) -> int:
        with pytest.raises(SystemExit) as stop:
            main(list(arguments))
        return int(stop.value.code or 0)

    def test_push(self, run: Path, stand_in: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.call("push", str(run), "me/mine", "--public", "--license", "mit") == 0
        assert stand_in.made == [{"repo_id": "me/mine", "private": False, "exist_ok": True}]
        assert "uploaded: https://huggingface.co/me/mine" in capsys.readouterr().out

    def test_card_and_export(self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.call("card", str(run), "--license", "mit") == 0
        assert "license: mit" in (run / "README.md").read_text()
        out = tmp_path / "a.safetensors"
        assert self.call("export", str(run), "--format", "kohya", "--half", "--out", str(out)) == 0
        assert out.is_file()
        assert self.call("export", str(run), "--out", str(out)) == 1
        shown = capsys.readouterr()
        assert f"written: {out}" in shown.out
        assert shown.err.startswith("error: ")
        assert shown.err.count("\n") == 1

    def test_train_uploads_at_its_end(
        self, tmp_path: Path, stand_in: StandIn, capsys: pytest.CaptureFixture[str]
    ) -> None:
        options = as_options(small(tmp_path, max_steps=1, evaluation={"metrics": ["pairwise_diversity"]}))
        run = str(tmp_path / "run")
        assert self.call("train", "spo", "--quiet", "--out", run, "--push-to-hub", "me/mine", *options) == 0
        assert "uploaded: https://huggingface.co/me/mine" in capsys.readouterr().out
        assert set(stand_in.files) == LORA
        assert b"SPO" in stand_in.files["README.md"]
        stand_in.failure, stand_in.files = ConnectionError("no route"), {}
        assert self.call("push", run, "me/mine") == 1
        assert (
            self.call(
                "sample",
                "--run",
                run,
                "--prompt",
                "a red ring",
                "--steps",
                "2",
                "--images",
                "1",
                "--out",
                str(tmp_path / "images"),
            )
            == 0
        )

    def test_train_refuses_a_bad_name_before_it_trains(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.call("train", "spo", "--out", str(tmp_path / "run"), "--push-to-hub", "mine") == 1
        assert "repository 'mine' is not of the form owner/name" in capsys.readouterr().err
        assert not (tmp_path / "run").exists()
