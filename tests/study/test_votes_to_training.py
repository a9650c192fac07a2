"""Votes of simulated people in each form, through the real server, become training data that say the truth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from seedpo.cli.main import app
from seedpo.cli.study import study_app
from seedpo.data.reading import read_pairs
from seedpo.data.settings import PairsConfig
from seedpo.scenes.pairs import careless_drawings
from seedpo.scenes.prompts import TRAINING_PROMPTS
from seedpo.scenes.taste import TIE, true_utility
from seedpo.study.folder import Study, open_study
from seedpo.study.records import Form
from seedpo.study.simulated import simulate
from seedpo.study.votes.store import Store
from seedpo.study.web.serving import serving_aside
from seedpo.training.configuration import resolve_config
from seedpo.training.run import train
from tests.small_runs import metrics
from tests.study.closed_loop import BUSY, LIKED, by_the_truth
from tests.training.toys import cpu_accelerator

FORMS: tuple[Form, ...] = ("pair", "best-worst", "single")


def drawings(folder: Path, *, prompts: int, images: int = 4, seed: int = 0) -> Path:
    """Careless drawings of training prompts, as ``seedpo sample`` lays them out."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(TRAINING_PROMPTS), generator=generator)[:prompts].tolist()
    drawn = [TRAINING_PROMPTS[row] for row in rows for _ in range(images)]
    pixels, _ = careless_drawings(drawn, generator=generator)
    folder.mkdir(parents=True)
    index = []
    for number, (prompt, image) in enumerate(zip(drawn, pixels, strict=True)):
        name = f"{number:05d}.png"
        levels = (image * 255.0).round().clamp(0.0, 255.0).to(torch.uint8)
        Image.fromarray(levels.permute(1, 2, 0).numpy()).save(folder / name)
        index.append({"file": name, "prompt": prompt})
    (folder / "index.json").write_text(json.dumps(index), "utf-8")
    return folder


def voted(folder: Path, form: Form, *, prompts: int, raters: int = 2) -> tuple[Study, Path]:
    """A study of drawings in a form, all of it answered, and its export."""
    images = drawings(folder / "images", prompts=prompts)
    arguments = ["create", str(folder / "study"), "--images", str(images), "--form", form]
    run = CliRunner()
    made = run.invoke(study_app, [*arguments, "--checks", "0.1", "--repeats", "0.1", "--seed", "5"])
    assert made.exit_code == 0, made.output
    study = open_study(folder / "study")
    with Store.open(study) as store:
        tokens = [token for _, token in store.add_raters([""] * raters)]
    with serving_aside(study.folder, limits=BUSY) as address:
        simulate(address, tokens, by_the_truth, timed=False)
    out = folder / "votes.parquet"
    exported = run.invoke(study_app, ["export", str(study.folder), "--out", str(out)])
    assert exported.exit_code == 0, exported.output
    return study, out


def truth_of(images: Sequence[torch.Tensor], prompts: Sequence[str]) -> list[float]:
    return [round(value, 3) for value in true_utility(torch.stack(list(images)), prompts).tolist()]


def expected_pairs(study: Study, form: Form) -> list[tuple[str, float, float]]:
    """Prompt and true utilities of the pairs that follow from noiseless answers to everything that is asked."""
    pairs = []
    for group in study.groups:
        if group.expected is not None:
            continue
        pixels = [
            torch.from_numpy(np.asarray(Image.open(study.image(candidate.images[0])), dtype=np.float32) / 255.0)
            for candidate in group.candidates
        ]
        truth = truth_of([image.permute(2, 0, 1) for image in pixels], [group.prompt] * len(pixels))
        best, worst = truth.index(max(truth)), truth.index(min(truth))
        for first, second in combinations(range(len(truth)), 2):
            chosen, rejected = sorted((truth[first], truth[second]), reverse=True)
            says = {
                "pair": chosen - rejected >= TIE,
                "best-worst": bool({best, worst} & {first, second}),
                "single": chosen > LIKED >= rejected,
            }
            if says[form]:
                pairs.append((group.prompt, chosen, rejected))
    return sorted(pairs)


@pytest.mark.parametrize("form", FORMS)
def test_the_pairs_for_training_are_those_of_the_truth(tmp_path: Path, form: Form) -> None:
    study, out = voted(tmp_path, form, prompts=12 if form == "best-worst" else 3, raters=1)
    with Store.open(study) as store:
        judged = store.judgements()
    checks = [judgement for judgement in judged if judgement.expected is not None]
    assert checks, "attention checks were asked"
    assert all(judgement.passed for judgement in checks), "the truth sees what is spoiled"
    assert any(judgement.show.repeat_of for judgement in judged)
    pairs = read_pairs(out, PairsConfig(ties="drop"))
    read = [pairs[index] for index in range(len(pairs))]  # type: ignore[arg-type, index]
    chosen, rejected = (
        truth_of([getattr(pair, side) for pair in read], [pair.prompt for pair in read])
        for side in ("chosen", "rejected")
    )
    found = sorted(zip([pair.prompt for pair in read], chosen, rejected, strict=True))
    assert found == expected_pairs(study, form)
    checked = CliRunner().invoke(app, ["data", "check", str(out)])
    assert checked.exit_code == 0, checked.output
    assert f"checked: {len(found)} pairs" in checked.output


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_training_on_the_votes_raises_the_truth(tmp_path: Path, form: Form) -> None:
    """360 votes on pairs, 60 on views of four or 240 likes; docs/study.md has 60 steps, which gain 0.46 at least."""
    _, out = voted(tmp_path, form, prompts=60, raters=1)
    settings = {
        "model": "scenes",
        "data": str(out),
        "max_steps": 30,
        "evaluate_every": 30,
        "batch_size": 16,
        "gradient_accumulation_steps": 1,
        "pairs": {"ties": "drop"},
        "evaluation": {
            "prompts": "scenes-evaluation",
            "num_prompts": 24,
            "images_per_prompt": 4,
            "num_inference_steps": 10,
            "guidance_scale": 3.0,
            "rewards": [],
            "metrics": ["truth"],
        },
    }
    config = resolve_config("diffusion-dpo", settings)
    train(config, tmp_path / "run", accelerator=cpu_accelerator(config), progress=False)
    truth = [line["truth"] for line in metrics(tmp_path / "run") if line["kind"] == "evaluation"]
    assert truth[-1] > truth[0] + 0.1
