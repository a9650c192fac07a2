"""What `seedpo plan` prints, for a tiny pipeline."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from seedpo.errors import ConfigError
from seedpo.planning.advice import advise
from seedpo.planning.command import plan_text
from seedpo.planning.dry_run import Guesses
from seedpo.planning.gpus import find_gpu
from seedpo.planning.memory import Memory
from seedpo.planning.plan import plan_run
from seedpo.settings import build_config
from seedpo.training.configuration import resolve_config
from seedpo.training.settings import RunConfig
from tests.planning.real_runs import model_folder

OFF = {"evaluation": {"rewards": []}}
WHOLE: dict[str, Any] = {"max_steps": 100, "batch_size": 16, "gradient_accumulation_steps": 1}


def planned(
    folder: Path,
    changes: dict[str, Any],
    *,
    gpu: str = "a100-80gb",
    gpus: int = 1,
    utilisation: float = 0.35,
    as_json: bool = False,
) -> str:
    recipe = folder / "recipe.yaml"
    recipe.write_text(f"method: diffusion-dpo\nmodel: {model_folder('sd15')}\ndata: my-pairs\n", encoding="utf-8")
    keys = WHOLE | OFF | changes
    kind = find_gpu(gpu)
    config = resolve_config(str(recipe), keys, bfloat16=kind.bfloat16)
    make = partial(plan_run, config, gpu=kind, gpus=gpus, utilisation=utilisation, guesses=Guesses())
    return plan_text(make, as_json=as_json)


def test_the_table(tmp_path: Path) -> None:
    text = planned(tmp_path, {}, gpus=4)
    for part in (
        "LoRA of rank 4, bf16",  # in which models other than the embedded one are trained on such a GPU
        "4 x A100-80, 80 GiB each; 35% of the peak (312 TFLOP/s in half precision) is assumed: --utilisation",
        "forwards per pair",
        "100 steps of 64: 6,400 pairs",
        "GPU-hours",
        "training step",
        "of 80 GiB",
    ):
        assert part in text
    policy = next(line for line in text.splitlines() if line.startswith("policy"))
    assert policy.split()[1] == "2.00"
    assert "warning" not in text


def test_json_and_what_hours_follow_from(tmp_path: Path) -> None:
    first, second = (json.loads(planned(tmp_path, {}, utilisation=share, as_json=True)) for share in (0.2, 0.4))
    assert first["hours"] == pytest.approx(2 * second["hours"])
    assert first["flops"] == second["flops"]
    memory = first["memory"]
    assert memory["peak"] == sum(memory["held"].values()) + max(memory["phases"].values())
    assert sum(part["share"] for part in first["activities"].values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("changes", "arguments", "said"),
    [
        ({}, {"gpus": 0}, "--gpus 0 must be at least 1"),
        ({}, {"utilisation": 0.0}, "--utilisation 0.0 must be above 0"),
        ({}, {"gpu": "abacus"}, "unknown GPU 'abacus'"),
        ({"model": "nobody/nothing"}, {}, "model 'nobody/nothing'"),
    ],
)
def test_what_is_refused(tmp_path: Path, changes: dict[str, Any], arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        planned(tmp_path, changes, **arguments)


def test_advice_names_the_key() -> None:
    gpu, config = find_gpu("RTX-4090"), build_config(RunConfig, WHOLE | {"batch_size": 8, "mixed_precision": "bf16"})
    memory = Memory(held={"UNet": 10 * 2**30}, phases={"training step": 30 * 2**30})
    said = advise(config, gpu, memory, previews=0.5)
    assert said[0] == (
        "does not fit: training step takes about 40.0 of 24 GiB; try gradient_checkpointing=true, "
        "or batch_size=4 with gradient_accumulation_steps=2"
    )
    assert "preview_vae" in said[1]
    assert advise(config, gpu, replace(memory, phases={"training step": 2**30}), previews=0.0) == []
    assert "set mixed_precision=fp16" in advise(config, find_gpu("T4"), memory, previews=0.0)[1]


def with_people(folder: Path, reference: str, *, gpus: int = 1, as_json: bool = False) -> str:
    """A hundred steps of 12 pairs: 25 rounds of 48 pairs, since each pair is trained on at one step."""
    asked = {"method": "d3po", "batch_size": 12, "max_steps": 100, "feedback": {"study": str(folder / "study")}}
    rounds = {"images_per_prompt": 4, "prompts_per_rollout": 8, "steps_per_pair": 1}
    return planned(
        folder, asked | {"trajectories": rounds, "reference": {"kind": reference}}, gpus=gpus, as_json=as_json
    )


def test_people_are_counted_in_place_of_a_scorer(tmp_path: Path) -> None:
    text = with_people(tmp_path, "frozen", gpus=2)
    for part in (
        f"judged by people: study {tmp_path / 'study'}, every pair of a prompt, 1 rater each",
        "people judge per round: 16 groups, 96 pairs, 96 votes",
        "people judge in all: 400 groups, 2,400 pairs, 2,400 votes",
        "note: hours are those of the GPUs, which wait while people vote",
        "\nreference ",
        "+ reference",
    ):
        assert part in text
    assert "reward" not in text
    assert not (tmp_path / "study").exists(), "a plan makes nothing"


def test_the_policy_of_the_roll_out_as_reference_costs_no_pass(tmp_path: Path) -> None:
    plan = json.loads(with_people(tmp_path, "rollout", as_json=True))
    assert "reference" not in plan["activities"]
    assert "reference" not in plan["memory"]["phases"]
    assert plan["reward"] == ""
    assert plan["people"] == {
        "study": str(tmp_path / "study"),
        "raters_per_pair": 1,
        "per_round": {"groups": 8, "pairs": 48, "votes": 48},
        "in_all": {"groups": 200, "pairs": 1200, "votes": 1200},
    }
