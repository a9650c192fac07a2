"""How long every command takes on a small input, and which heavy libraries it imports.

``python -m benchmarks.startup [NAMES] [--turns N] [--against SRC] [--out FILE.json]`` runs each command in a process of
its own, and prints medians of processor time. ``--against`` names the ``src`` folder of another checkout: the two take
turns, on the same inputs.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

HEAVY = ("torch", "diffusers", "transformers", "peft", "accelerate", "matplotlib", "pandas", "scipy", "sklearn")
"""Libraries that take a good part of a second to import."""

MODEL_LIBRARIES = ("torch", "diffusers", "transformers", "peft", "accelerate")
"""What no command imports that needs no model."""

PROBE = f"""
import sys
from seedpo.cli import main
try:
    main(sys.argv[2:])
finally:
    with open(sys.argv[1], "w") as stream:
        stream.write(" ".join(name for name in {HEAVY!r} if name in sys.modules))
"""

FLOOR = """
import sys
open(sys.argv[1], "w").close()
import torch
from accelerate import Accelerator
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from peft import LoraConfig
from transformers import CLIPModel
"""
"""What a run cannot do without, and nothing else."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command on the inputs of :func:`make_inputs`.

    Attributes:
        line: its words; ``{out}`` is a place that is not there yet.
        needs_model: whether it draws, trains or scores, and so needs torch.
        status: its exit status; 1 where it is stopped before it would serve, train or go to the network.
    """

    line: str
    needs_model: bool = False
    status: int = 0

    @property
    def name(self) -> str:
        """The words before the first input."""
        words = self.line.split()
        return " ".join(words[: 1 + (words[0] in GROUPS)])


GROUPS = ("config", "data", "cache", "reward", "figure", "study", "scenes", "bench")
"""Commands with commands of their own."""

_SHORT = "--set model=scenes --set data=pairs.parquet"

COMMANDS = (
    Command(line="--version"),
    Command(line="demo --out {out} --only nothing", status=1),
    Command(line="init {out}.yaml --data pairs.parquet --model owner/name --memory 12"),
    Command(line="list rewards"),
    Command(line="config explain beta"),
    Command(line="config show lora-sd15-12gb --set gamma=1"),
    Command(line="data check pairs.parquet --out {out} --quiet"),
    Command(line="data convert pairs.parquet --out {out} --quiet"),
    Command(line="data label pairs.parquet --reward nothing --out {out}.parquet", status=1, needs_model=True),
    Command(line=f"plan diffusion-dpo {_SHORT} --gpu RTX-4090", needs_model=True),
    Command(line="plan diffusion-dpo --gpu none", status=1),
    Command(line="cache build diffusion-dpo --set beta=none", status=1),
    Command(line=f"cache build diffusion-dpo {_SHORT} --set cache.folder={{out}} --quiet", needs_model=True),
    Command(line="cache check cache --quiet"),
    Command(line="reward train --out {out} --set batch_size=0", status=1),
    Command(line="reward train --set max_steps=1 --set batch_size=2 --dry-run --quiet --out {out}", needs_model=True),
    Command(line="reward plan --gpu RTX-4090", needs_model=True),
    Command(line="reward measure --set batch_size=0", status=1),
    Command(line="reward serve nothing", status=1, needs_model=True),
    Command(line="train spo --set gama=1 --out {out}", status=1),
    Command(line=f"train diffusion-dpo {_SHORT} --set max_steps=0 --out {{out}}", status=1),
    Command(line=f"train diffusion-dpo {_SHORT} --dry-run --quiet --out {{out}}", needs_model=True),
    Command(line=f"sweep diffusion-dpo {_SHORT} --vary seed=0 --out {{out}} --shard 2/2"),
    Command(line="report run --out {out}.html"),
    Command(line="frontier run --out {out}"),
    Command(line="figure grid run --out {out}.svg"),
    Command(line="figure curves run --out {out}.svg"),
    Command(line="figure ablation run --out {out}.svg", status=1),
    Command(line="figure tradeoff run --out {out}.svg"),
    Command(line="figure accuracy run --out {out}.svg"),
    Command(line="figure paper --out {out} --format gif", status=1),
    Command(line="evaluate run --num-prompts 1 --images 1 --steps 1 --out {out} --quiet", needs_model=True),
    Command(line="sample --run run --prompt star --images 1 --steps 1 --out {out}", needs_model=True),
    Command(line="score images --reward jpeg-compressibility --out {out}.csv --quiet", needs_model=True),
    Command(line="export run --out {out}.safetensors"),
    Command(line="export run --format kohya --half --out {out}.safetensors"),
    Command(line="export run --format pipeline --out {out}", needs_model=True),
    Command(line="card run"),
    Command(line="push run no-owner", status=1),
    Command(line="study create {out} --images images"),
    Command(line="study serve nowhere", status=1),
    Command(line="study links study -n 1"),
    Command(line="study status study"),
    Command(line="study forget study nobody --yes", status=1),
    Command(line="study plan"),
    Command(line="study analyze study --out {out}", status=1),
    Command(line="study export study --out {out}.parquet", status=1),
    Command(line="study backup study --out {out}"),
    Command(line="study restore study --database sqlite:///{out}/none/votes.db", status=1),
    Command(line="study demo --out {out} --votes 1", needs_model=True),
    Command(line="scenes pairs --count 2 --out {out}.parquet", needs_model=True),
    Command(line="bench hacking --quick --method spo --out {out} --shard 99/99"),
)
"""Every command at least once."""


def make_inputs(folder: Path, run: Callable[[Path, Sequence[str]], None]) -> None:
    """Makes what the commands read: pairs, a run of 4 steps with two evaluations, images, a study, a cache.

    Args:
        folder: where.
        run: runs a command there.
    """
    small = (
        "--set max_steps=4 --set batch_size=2 --set evaluate_every=4 --set evaluation.num_prompts=2 "
        "--set evaluation.images_per_prompt=2 --set evaluation.num_inference_steps=2"
    )
    for line in (
        "scenes pairs --count 8 --out pairs.parquet",
        f"train diffusion-dpo {_SHORT} {small} --quiet --out run",
        "sample --run run --prompt star --images 2 --steps 2 --out images",
        f"cache build diffusion-dpo {_SHORT} --set cache.folder=cache --quiet",
        "study create study --images images",
    ):
        run(folder, line.split())


def _run(folder: Path, words: Sequence[str]) -> None:
    command = [sys.executable, "-m", "seedpo", *words]
    subprocess.run(command, cwd=folder, env=_environment(), check=True, capture_output=True)


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a command did.

    Attributes:
        status: its exit status.
        seconds: processor time, user and system.
        libraries: those of :data:`HEAVY` that it imported.
        output: what it printed.
    """

    status: int
    seconds: float
    libraries: tuple[str, ...]
    output: str


def start(command: Command | None, folder: Path, *, source: Path | None = None) -> Start:
    """Runs a command in a process of its own.

    Args:
        command: ``None`` for the libraries alone.
        folder: of :func:`make_inputs`.
        source: folder of the package; ``None`` for that of this process.
    """
    with tempfile.TemporaryDirectory() as scratch:
        libraries, out = Path(scratch) / "libraries", Path(scratch) / "out"
        words = [] if command is None else command.line.format(out=out).split()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = subprocess.run(
            [sys.executable, "-c", FLOOR if command is None else PROBE, str(libraries), *words],
            cwd=folder,
            env=_environment(source),
            capture_output=True,
            text=True,
            check=False,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        named = tuple(libraries.read_text().split()) if libraries.is_file() else ()
    return Start(status=result.returncode, seconds=seconds, libraries=named, output=result.stdout + result.stderr)


def _environment(source: Path | None = None) -> Mapping[str, str]:
    path = {} if source is None else {"PYTHONPATH": str(source)}
    return {**os.environ, **path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the commands and prints a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("names", nargs="*", help="commands, for example 'config show'; all if none is given")
    parser.add_argument("--turns", type=int, default=3, help="runs of each command")
    parser.add_argument("--against", type=Path, help="folder `src` of another checkout")
    parser.add_argument("--out", type=Path, help="JSON file of all times")
    chosen = parser.parse_args(arguments)
    sources = {"now": None} | ({} if chosen.against is None else {"before": chosen.against.resolve()})
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_inputs(folder, _run)
        commands = [command for command in COMMANDS if not chosen.names or command.name in chosen.names]
        for command in [*commands, None]:
            starts: dict[str, list[Start]] = {name: [] for name in sources}
            for _ in range(chosen.turns):
                for name, source in sources.items():
                    starts[name].append(start(command, folder, source=source))
            row: dict[str, object] = {"command": "(the libraries alone)" if command is None else command.line}
            for name, runs in starts.items():
                row |= {name: [run.seconds for run in runs], f"{name}, imports": " ".join(runs[-1].libraries)}
            rows.append(row)
            wrong = [] if command is None else [run for run in starts["now"] if run.status != command.status]
            print(_line(row), *(run.output[-500:] for run in wrong[:1]), flush=True)
    if chosen.out is not None:
        chosen.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def _line(row: Mapping[str, object]) -> str:
    cells = [f"{median(value):.2f} s" if isinstance(value, list) else str(value) or "none" for value in row.values()]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
