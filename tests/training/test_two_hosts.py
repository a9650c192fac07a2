"""Several machines train as one: two hosts with networks of their own (``hosts.py``) give the numbers of one host.

The commands are those of ``docs/platforms.md``.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from tests.small_runs import as_options, files_of, metrics, small
from tests.training.hosts import NAMES, PORT, Host, end, no_hosts, two_hosts
from tests.training.test_accelerator import FILES
from tests.training.test_crashes import ROOT, child_environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * 600)]

STEPS = 4
LONGEST = 600
"""Seconds that processes may take."""

Command = Callable[[Host], list[str]]


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    if reason := no_hosts():
        pytest.skip(reason)
    with two_hosts() as both:
        yield both


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def options(data: Path) -> list[str]:
    """Options of a run of :data:`STEPS` steps with a checkpoint after each."""
    return as_options(small(data, max_steps=STEPS, checkpoint_every=1, checkpoints_limit=9, evaluate_every=2))


def train_options(out: Path, options: Sequence[str]) -> list[str]:
    return ["train", "diffusion-dpo", "--out", str(out), "--quiet", *options]


def torchrun(*arguments: str, processes: int = 1, port: int = PORT) -> Command:
    """The same command on every machine."""
    place = ["--rdzv_backend", "c10d", "--rdzv_endpoint", f"{NAMES[0]}:{port}"]
    launcher = ["torch.distributed.run", "--nnodes", "2", "--nproc_per_node", str(processes), *place]
    return lambda host: [sys.executable, "-m", *launcher, "-m", "seedpo", *arguments]


def accelerate(*arguments: str, file: str) -> Command:
    """A command with the number of the machine."""

    def command(host: Host) -> list[str]:
        machines = ["--num_machines", "2", "--num_processes", "2", "--machine_rank", str(host.number)]
        place = ["--main_process_ip", NAMES[0], "--main_process_port", str(PORT)]
        launcher = ["accelerate.commands.accelerate_cli", "launch", "--config_file", str(FILES / file)]
        return [sys.executable, "-m", *launcher, *machines, *place, "-m", "seedpo", *arguments]

    return command


@dataclass(frozen=True, kw_only=True)
class Started:
    """What runs on a host.

    Attributes:
        process: the launcher.
        file: what it and its processes print.
    """

    process: subprocess.Popen[bytes]
    file: Path

    def status(self) -> int:
        try:
            return self.process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running: {self.file.read_text()[-3000:]}")

    def text(self) -> str:
        return self.file.read_text()

    def errors(self) -> list[str]:
        """The lines that seedpo prints of what ends it."""
        return [line for line in self.text().splitlines() if line.startswith("error: ")]


@contextmanager
def start(
    hosts: Sequence[Host], command: Command, folder: Path, name: str = "output", **more: str
) -> Iterator[list[Started]]:
    """Runs a command on hosts; what still runs at the end of the block is killed."""
    environment = child_environment() | more
    files = [folder / f"{name}-{host.name}.txt" for host in hosts]
    started = [
        Started(process=host.start(command(host), file, environment), file=file)
        for host, file in zip(hosts, files, strict=True)
    ]
    try:
        yield started
    finally:
        for one in started:
            end(one.process)


def succeed(hosts: Sequence[Host], command: Command, folder: Path, name: str = "output") -> list[str]:
    """What is printed by a command that must end well on all hosts."""
    with start(hosts, command, folder, name) as started:
        for one in started:
            assert one.status() == 0, one.text()[-4000:]
        return [one.text() for one in started]


def on_one_host(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "seedpo", *arguments],
        cwd=ROOT,
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]


def numbers(run: Path) -> list[dict[str, Any]]:
    """All metrics of a run, that two processes must have made to its end."""
    lines = metrics(run)
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, STEPS + 1))
    assert (run / "finished.json").exists()
    return lines


def go_on_alone(run: Path, options: Sequence[str], before: list[dict[str, Any]]) -> None:
    """One process takes over from both hosts: it draws other noise, for the same pairs in the same global batch."""
    step = max(int(path.name[11:]) for path in (run / "checkpoints").glob("checkpoint-??????"))
    on_one_host(*train_options(run, options), "--resume", "latest", "--set", "gradient_accumulation_steps=2")
    both = [[line for line in lines if line["kind"] == "train"] for lines in (numbers(run), before)]
    assert both[0][:step] == both[1][:step]
    assert [line["pairs_seen"] for line in both[0]] == [line["pairs_seen"] for line in both[1]]
    assert both[0][-1]["loss"] != both[1][-1]["loss"]
    assert both[0][-1]["loss"] == pytest.approx(both[1][-1]["loss"], abs=0.05)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + LONGEST
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def whole(options: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Numbers of two processes on one host."""
    run = tmp_path_factory.mktemp("one") / "whole"
    on_one_host(*train_options(run, options), "--processes", "2")
    return numbers(run)


@pytest.fixture(scope="module")
def shards(options: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The same in shards."""
    run = tmp_path_factory.mktemp("one") / "shards"
    on_one_host(*train_options(run, options), "--processes", "2", "--shard")
    return numbers(run)


def test_torchrun(hosts: tuple[Host, Host], whole: list[Any], options: list[str], tmp_path: Path) -> None:
    succeed(hosts, torchrun(*train_options(tmp_path / "run", options)), tmp_path)
    assert numbers(tmp_path / "run") == whole


def test_torchrun_in_shards(hosts: tuple[Host, Host], shards: list[Any], options: list[str], tmp_path: Path) -> None:
    succeed(hosts, torchrun(*train_options(tmp_path / "run", options), "--shard"), tmp_path)
    assert numbers(tmp_path / "run") == shards


def test_accelerate(hosts: tuple[Host, Host], whole: list[Any], options: list[str], tmp_path: Path) -> None:
    succeed(hosts, accelerate(*train_options(tmp_path / "run", options), file="ddp.yaml"), tmp_path)
    assert numbers(tmp_path / "run") == whole


def test_accelerate_in_shards(hosts: tuple[Host, Host], shards: list[Any], options: list[str], tmp_path: Path) -> None:
    succeed(hosts, accelerate(*train_options(tmp_path / "run", options), file="fsdp2.yaml"), tmp_path)
    assert numbers(tmp_path / "run") == shards


def test_two_processes_on_each(hosts: tuple[Host, Host], options: list[str], tmp_path: Path) -> None:
    on_one_host(*train_options(tmp_path / "one", options), "--processes", "4")
    succeed(hosts, torchrun(*train_options(tmp_path / "two", options), processes=2), tmp_path)
    assert numbers(tmp_path / "two") == numbers(tmp_path / "one")


def test_a_folder_that_is_not_shared(hosts: tuple[Host, Host], options: list[str], tmp_path: Path) -> None:
    """Each command ends before it loads a model; all are tried at once, since each is patient with slow disks."""
    (tmp_path / "own").mkdir()
    hosts[1].own_disk(tmp_path / "own")
    new = [str(tmp_path / "own" / name) for name in ("train", "reward", "evaluation", "cache")]
    commands = {
        "train": ["train", "diffusion-dpo", "--out", new[0], *options],
        "resume": ["train", "diffusion-dpo", "--out", new[0] + "2", "--resume", "latest", *options],
        "reward": ["reward", "train", "--out", new[1]],
        "evaluate": ["evaluate", "base=scenes", "--rewards", "scenes-scorer", "--out", new[2]],
        "cache": ["cache", "build", "diffusion-dpo", *options, "--set", f"cache.folder={new[3]}"],
    }
    with ExitStack() as stack:
        started = {
            name: stack.enter_context(start(hosts, torchrun(*command, port=PORT + number), tmp_path, name))
            for number, (name, command) in enumerate(commands.items())
        }
        for name, both in started.items():
            for one in both:
                assert one.status() == 1, one.text()
                (error,) = one.errors()
                assert all(word in error for word in (NAMES[0], NAMES[1], str(tmp_path / "own"), "share")), name


def test_data_that_one_host_lacks(hosts: tuple[Host, Host], options: list[str], data: Path, tmp_path: Path) -> None:
    hosts[1].own_disk(data)
    with start(hosts, torchrun(*train_options(tmp_path / "run", options)), tmp_path) as both:
        for one in both:
            assert one.status() == 1
            assert len(one.errors()) == 1, one.text()
            assert NAMES[1] in one.errors()[0] or one is both[1]


def test_a_recipe_that_one_host_lacks(hosts: tuple[Host, Host], data: Path, tmp_path: Path) -> None:
    """One process fails before it meets the other."""
    (tmp_path / "recipes").mkdir()
    recipe = tmp_path / "recipes" / "mine.yaml"
    recipe.write_text("method: diffusion-dpo\nmax_steps: 1\n", encoding="utf-8")
    hosts[1].own_disk(tmp_path / "recipes")
    with start(hosts, torchrun("train", str(recipe), "--out", str(tmp_path / "run")), tmp_path) as both:
        for one in both:
            assert one.status() == 1
            assert len(one.errors()) == 1, one.text()
        assert NAMES[1] in both[0].errors()[0]


def test_a_killed_host(hosts: tuple[Host, Host], whole: list[Any], options: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = torchrun(*train_options(run, options), "--resume", "latest")
    with start(hosts, command, tmp_path) as both:
        wait_for(run / "checkpoints" / "checkpoint-000002")
        hosts[1].kill_everything()
        began = time.monotonic()
        assert both[0].status() == 1
        seconds = time.monotonic() - began
        assert seconds < 60
        assert len(both[0].errors()) == 1, both[0].text()
    assert not (run / "finished.json").exists()
    copytree(run, tmp_path / "alone")
    succeed(hosts, command, tmp_path, "resumed")
    assert numbers(run) == whole
    go_on_alone(tmp_path / "alone", options, whole)


def test_a_killed_host_and_one_host_that_goes_on(
    hosts: tuple[Host, Host], shards: list[Any], options: list[str], tmp_path: Path
) -> None:
    """Here the host ends that has the launcher's store; then two processes of one host continue."""
    arguments = train_options(tmp_path / "run", options)
    with start(hosts, torchrun(*arguments, "--shard"), tmp_path) as both:
        wait_for(tmp_path / "run" / "checkpoints" / "checkpoint-000002")
        hosts[0].kill_everything()
        assert both[1].status() != 0
        assert len(both[1].errors()) == 1, both[1].text()
    assert not (tmp_path / "run" / "finished.json").exists()
    copytree(tmp_path / "run", tmp_path / "alone")
    on_one_host(*arguments, "--processes", "2", "--shard", "--resume", "latest")
    assert numbers(tmp_path / "run") == shards
    go_on_alone(tmp_path / "alone", options, shards)


def test_a_network_that_goes_down(hosts: tuple[Host, Host], options: list[str], tmp_path: Path) -> None:
    """No packet says that the other host is gone: only its heartbeats stay away."""
    run = tmp_path / "run"
    with start(hosts, torchrun(*train_options(run, options)), tmp_path, SEEDPO_LOST_AFTER="15") as both:
        wait_for(run / "checkpoints" / "checkpoint-000001")
        hosts[1].unplug()
        assert both[0].status() != 0
        deadline = time.monotonic() + LONGEST
        # There torchrun itself waits for its store until the kernel gives the connection up; nothing trains any more.
        while not both[1].errors() and time.monotonic() < deadline:
            time.sleep(0.1)
        for one in both:
            assert len(one.errors()) == 1, one.text()
    assert not (run / "finished.json").exists()


def test_an_evaluation(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    """Which process draws an image changes neither its bytes nor its scores."""
    names = ["--rewards", "scenes-scorer", "--metrics", "truth,pairwise_diversity", "--prompts", "scenes-evaluation"]
    sizes = ["--num-prompts", "4", "--images", "2", "--steps", "2", "--batch-size", "2", "--quiet"]
    command = ["evaluate", "base=scenes", *names, *sizes]
    on_one_host(*command, "--out", str(tmp_path / "one"))
    texts = succeed(hosts, torchrun(*command, "--out", str(tmp_path / "two")), tmp_path)
    one, two = (files_of(tmp_path / name) for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == []
    assert sum(name.endswith(".png") for name in one) == 8
    assert "evaluation:" in texts[0] + texts[1]


PAGE = (ROOT / "docs" / "platforms.md").read_text(encoding="utf-8")


def script(heading: str, *, changes: dict[str, str]) -> str:
    """The script that a document shows below a heading, with other words in the places of some."""
    lines = PAGE[PAGE.index(heading) :].splitlines()
    block = takewhile(lambda line: line.startswith("    "), lines[lines.index("    #!/bin/bash") :])
    text = "\n".join(line[4:] for line in block)
    for word, other in changes.items():
        assert word in text, word
        text = text.replace(word, other)
    return text


def commands_on_path(place: Path, commands: dict[str, str]) -> dict[str, str]:
    """The variable of the environment with which bash scripts are found as commands."""
    place.mkdir()
    for name, text in commands.items():
        (place / name).write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
        (place / name).chmod(0o755)
    return {"PATH": f"{place}:{os.environ['PATH']}"}


def commands_of_slurm(hosts: Sequence[Host], place: Path) -> dict[str, str]:
    """Variables of the environment with which a script finds SLURM's commands; they start and signal on both hosts."""
    inside = [shlex.join(host.inside([])) for host in hosts]
    commands = {
        "scontrol": f"if [ $1 = show ]; then echo {NAMES[0]}; echo {NAMES[1]}; else echo $@ >> {place}/requeued; fi",
        "scancel": "\n".join(f"{prefix} sh -c 'kill -TERM -1'" for prefix in inside),
        "srun": 'while [ "${1#--}" != "$1" ]; do shift; done\n'
        + "".join(f'{prefix} "$@" & pid{number}=$!\n' for number, prefix in enumerate(inside))
        + "wait $pid0; status=$?; wait $pid1 && exit $status",
        "torchrun": f'exec {sys.executable} -m torch.distributed.run "$@"',
    }
    variables = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "machine[0-1]", "SLURM_JOB_NUM_NODES": "2"}
    return variables | commands_on_path(place, commands)


def test_a_script_for_slurm(hosts: tuple[Host, Host], whole: list[Any], options: list[str], tmp_path: Path) -> None:
    """SIGTERM reaches the script alone, as ``--signal=B:TERM@...`` sends it; the script that is put back goes on."""
    run = tmp_path / "run"
    changes = {". .venv/bin/activate": "", "--nproc_per_node 8": "--nproc_per_node 1"}
    options_of_run = shlex.join(["diffusion-dpo", "--quiet", *options])
    changes |= {"my-full.yaml --shard": options_of_run, "/shared/runs/mine": str(run)}
    (tmp_path / "job.sh").write_text(script("### One run on several machines", changes=changes), encoding="utf-8")
    environment = child_environment() | commands_of_slurm(hosts, tmp_path / "bin")
    with (tmp_path / "job.txt").open("wb") as output:
        job = subprocess.Popen(
            ["bash", str(tmp_path / "job.sh")], cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    first = Started(process=job, file=tmp_path / "job.txt")
    wait_for(run / "checkpoints" / "checkpoint-000001")
    job.send_signal(signal.SIGTERM)
    assert first.status() != 0
    assert not (run / "finished.json").exists(), first.text()
    assert first.errors(), first.text()
    assert all("stopped after step" in line for line in first.errors()), first.text()
    assert (tmp_path / "bin" / "requeued").read_text() == "requeue 7\n"
    again = subprocess.run(
        ["bash", str(tmp_path / "job.sh")], env=environment, cwd=ROOT, timeout=LONGEST, capture_output=True, check=False
    )
    assert again.returncode == 0, again.stderr.decode()[-4000:]
    assert numbers(run) == whole
    assert (tmp_path / "bin" / "requeued").read_text() == "requeue 7\n"


def test_a_script_for_a_sweep(data: Path, tmp_path: Path) -> None:
    """A job of an array that is stopped goes on where it was."""
    sweep, out = tmp_path / "sweep.yaml", tmp_path / "sweep"
    keys = small(data, max_steps=STEPS, checkpoint_every=1)
    sweep.write_text(json.dumps({"base": {"method": "diffusion-dpo", **keys}, "seeds": [0, 1]}), encoding="utf-8")
    changes = {". .venv/bin/activate": "", "sweep.yaml": str(sweep), "/shared/sweeps/big": str(out)}
    (tmp_path / "job.sh").write_text(script("### A sweep", changes=changes), encoding="utf-8")
    place = tmp_path / "bin"
    seedpo = f'exec {sys.executable} -m seedpo "$@"'
    path = commands_on_path(place, {"scontrol": f"echo $@ >> {place}/requeued", "seedpo": seedpo})
    array = {"SLURM_JOB_ID": "8", "SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "2"}
    environment = child_environment() | array | path
    command = ["bash", str(tmp_path / "job.sh")]
    job = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    wait_for(out / "seed=0" / "checkpoints" / "checkpoint-000001")
    job.send_signal(signal.SIGTERM)
    assert job.wait(LONGEST) != 0
    assert not (out / "seed=0" / "finished.json").exists()
    assert (place / "requeued").read_text() == "requeue 8\n"
    subprocess.run(command, cwd=ROOT, env=environment, timeout=LONGEST, check=True, capture_output=True)
    assert [line["step"] for line in metrics(out / "seed=0") if line["kind"] == "train"] == list(range(1, STEPS + 1))
    assert not (out / "seed=1").exists()
