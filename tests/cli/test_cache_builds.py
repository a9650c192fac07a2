"""``seedpo cache build`` and ``seedpo cache check``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from accelerate.state import AcceleratorState

from seedpo.cli import main
from seedpo.cli.shared import read_changes
from seedpo.data.cache.check import check_folder
from seedpo.data.cache.store import build_lock
from seedpo.models.policy import build_policy
from seedpo.scenes.pairs import preference_table
from seedpo.training.caches import open_caches
from seedpo.training.configuration import resolve_config
from seedpo.training.run import build_pairs
from tests.data.pictures import BLUE, GREEN, RED
from tests.data.tables.test_archives import sample, write_tar
from tests.small_runs import few_pairs
from tests.training.test_caches import flip_a_byte_of_each_shard

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _fresh_accelerator() -> None:
    """Accelerate keeps the first precision of a process; every test starts afresh."""
    AcceleratorState._reset_state(reset_partial_state=False)


def call(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    """Exit status, output and errors of a command."""
    status = 0
    capsys.readouterr()
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        status = int(end.code or 0)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def build(capsys: pytest.CaptureFixture[str], folder: Path, *more: str) -> tuple[int, str, str]:
    keys = {"model": "scenes", "data": few_pairs(folder), "cache.folder": folder / "cache"}
    options = [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]
    return call(capsys, "cache", "build", "diffusion-dpo", *options, "--quiet", *more)


class TestBuild:
    def test_fills_the_cache_once(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        status, out, _ = build(capsys, tmp_path)
        assert status == 0
        first = {report.kind: report.entries for report in check_folder(tmp_path / "cache")}
        assert f"{first['latents']} pairs stored" in out
        assert f"{first['latents']} latents, {first['prompts']} prompts computed" in out
        assert 0 < first["prompts"] <= first["latents"]
        status, out, _ = build(capsys, tmp_path)
        assert "0 latents, 0 prompts computed, the others were there already" in out
        assert {report.kind: report.entries for report in check_folder(tmp_path / "cache")} == first
        # Mirrored pairs are further entries, and prompts are the same.
        assert build(capsys, tmp_path, "--set", "pairs.flip=true")[0] == 0
        both = {report.kind: report.entries for report in check_folder(tmp_path / "cache")}
        assert both == {"latents": 2 * first["latents"], "prompts": first["prompts"]}

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["diffusion-dpo"], "cache.folder"),
            (["d3po", "--set", "cache.folder=x"], "d3po"),
            (
                [
                    "diffusion-dpo",
                    *("--set", "cache.folder=x", "--set", "cache.latents=false", "--set", "cache.prompts=false"),
                ],
                "cache.latents",
            ),
            (
                [
                    "diffusion-dpo",
                    *("--set", "cache.folder=x", "--set", "cache.latents=false", "--set", "lora_text_encoder=true"),
                ],
                "set cache.latents to true",
            ),
        ],
    )
    def test_refused(self, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
        status, out, errors = call(capsys, "cache", "build", *arguments)
        assert (status, out) == (1, "")
        assert errors.startswith("error: ")
        assert message in errors
        assert len(errors.splitlines()) == 1

    def test_one_pass_of_a_stream_is_stored(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        files = {}
        for number, colour in enumerate((RED, GREEN)):
            files |= sample(str(number), f"prompt {number}", colour, BLUE)
        path = write_tar(tmp_path / "pairs.tar", files)
        options = [
            "--set",
            "model=scenes",
            "--set",
            f"data={path}",
            "--set",
            "pairs.resolution=32",
            "--set",
            f"cache.folder={tmp_path / 'cache'}",
        ]
        assert call(capsys, "cache", "build", "diffusion-dpo", *options, "--quiet")[0] == 0
        entries = {report.kind: report.entries for report in check_folder(tmp_path / "cache")}
        assert entries == {"latents": 2, "prompts": 2}
        config = resolve_config("diffusion-dpo", read_changes(options[1::2]))
        policy = build_policy(config)
        pairs = open_caches(config, policy).encoder(build_pairs(config))
        policy.encode_images = None  # type: ignore[method-assign, assignment]
        pairs.encode([0, 1], [False, False])
        pairs.encode([2, 3], [False, False])
        more = ["--set", "cache.reference=true", "--set", "cache.visits=1"]
        status, _, errors = call(capsys, "cache", "build", "diffusion-dpo", *options, *more)
        assert (status, "cache.reference" in errors) == (1, True)

    def test_one_build_at_a_time(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with build_lock(tmp_path / "cache"):
            status, _, errors = build(capsys, tmp_path)
        assert status == 1
        assert str(tmp_path / "cache") in errors


class TestCheck:
    def test_an_intact_cache_and_a_damaged_one(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        build(capsys, tmp_path)
        caplog.set_level("INFO", logger="seedpo")
        status, out, _ = call(capsys, "cache", "check", tmp_path / "cache", "--quiet")
        assert status == 0
        assert "is intact" in out
        for report in check_folder(tmp_path / "cache"):
            assert f"{report.kind:10} {report.entries:>9} entries" in caplog.text
            assert str(report.folder) in caplog.text
            assert report.bytes == sum(path.stat().st_size for path in report.folder.iterdir())
        damaged = flip_a_byte_of_each_shard(tmp_path / "cache")
        status, _, errors = call(capsys, "cache", "check", tmp_path / "cache", "--quiet")
        assert status == 1
        assert f"{len(damaged)} places in" in errors
        for path in damaged:
            assert path.exists(), "a check changes nothing"
            assert str(path) in caplog.text

    def test_settings_and_index(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        build(capsys, tmp_path)
        for path in (tmp_path / "cache").glob("*/*/*"):
            content = path.read_bytes()
            path.write_bytes(content[:60] + bytes([content[60] ^ 1]) + content[61:])
            assert any(report.damaged for report in check_folder(tmp_path / "cache")), path
            path.write_bytes(content)
        assert not any(report.damaged for report in check_folder(tmp_path / "cache"))

    def test_what_is_no_cache(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for folder, message in ((tmp_path, "holds no cache"), (tmp_path / "none", "is not a folder")):
            status, _, errors = call(capsys, "cache", "check", folder)
            assert status == 1
            assert message in errors
            assert "name the cache.folder of a run" in errors


@pytest.mark.slow
def test_a_build_that_is_killed_goes_on(tmp_path: Path) -> None:
    """The command itself; every place of the writing is killed in ``tests/data/cache``."""
    pq.write_table(preference_table(count=1000, seed=1), tmp_path / "pairs.parquet")
    cache = tmp_path / "cache"
    command = [sys.executable, "-m", "seedpo", "cache", "build", "diffusion-dpo", "--quiet", "--set", "model=scenes"]
    command += ["--set", f"data={tmp_path / 'pairs.parquet'}", "--set", f"cache.folder={cache}"]
    # Shards of a few entries, so that there is something on the disk when it is killed.
    code = "import sys; import seedpo.data.cache.store as s; s.SHARD_ENTRIES = 25; "
    code += f"from seedpo.cli import main; main({command[3:]!r})"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    for number in (2, 8):
        process = subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(cache.glob("latents/*/*.safetensors"))) < number:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    before = {report.kind: report.entries for report in check_folder(cache)}
    assert before["latents"] >= 200
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    reports = {report.kind: report for report in check_folder(cache)}
    assert not any(report.damaged for report in reports.values())
    assert f"{reports['latents'].entries - before['latents']} latents" in result.stdout
