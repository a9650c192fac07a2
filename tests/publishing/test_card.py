"""What a model card says, and what it does not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from seedpo.core.verdicts import Gain
from seedpo.errors import RunFolderError
from seedpo.evaluation.gains import compare_with_base, save_scores
from seedpo.publishing.card import write_card
from seedpo.publishing.grid import GAP, sample_grid
from seedpo.run_folders import RunFolder, read_metrics
from seedpo.settings import build_config
from seedpo.training.settings import RunConfig
from tests.publishing.handmade import figure, write_folder

HUB = "stable-diffusion-v1-5/stable-diffusion-v1-5"


def card(run: Path, *, options: dict[str, Any] | None = None, **changes: Any) -> tuple[dict[str, Any], str]:
    named = {"data": "scenes-pairs", "prompts": "scenes-training", "reward": "scenes-scorer"}
    settings = {"method": "spo", "model": HUB, "beta": 10.0, "gamma": 3.0, "max_steps": 40, "clip_range": 0.1}
    write_folder(run, build_config(RunConfig, named, settings | changes))
    path = write_card(run, **(options or {}))
    assert path == run / "README.md"
    _, header, text = path.read_text().split("---\n", 2)
    return yaml.safe_load(header), text


def test_header(tmp_path: Path) -> None:
    header, _ = card(tmp_path / "run", model=f"{HUB}@main")
    assert header == {
        "base_model": HUB,
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["text-to-image", "diffusers", "spo", "preference-optimisation", "seedpo", "lora", "see-dpo"],
    }


def test_a_licence_is_named_only_if_it_is_given(tmp_path: Path) -> None:
    header, text = card(tmp_path / "run", options={"license": "openrail++"})
    assert header["license"] == "openrail++"
    assert "licence" not in text


def test_the_base_method_and_the_whole_network(tmp_path: Path) -> None:
    header, text = card(tmp_path / "run", gamma=0.0, adapter="full", method="diffusion-dpo")
    assert not {"see-dpo", "lora"} & set(header["tags"])
    assert "# stable-diffusion-v1-5 aligned with Diffusion-DPO\n" in text
    assert "(arXiv 2311.12908)" in text
    assert 'subfolder="unet"' in text
    assert "| preference pairs | scenes-pairs |" in text
    assert "| trained | the whole network |" in text


def test_it_says_whether_the_result_is_better_than_its_base(tmp_path: Path) -> None:
    run = tmp_path / "run"
    card(run, method="diffusion-dpo", gamma=0.0, clip_range=None)
    folder = RunFolder.open(run)
    spread = [[float(image) for image in range(3)] for _ in range(12)]
    save_scores({"scenes-scorer": spread}, folder.samples, 0)
    save_scores({"scenes-scorer": [[score + 1.0 for score in row] for row in spread]}, folder.samples, 40)
    lines = read_metrics(folder.metrics)
    lines[1]["source/visits"] = 8.0
    lines[-1] |= {"validation/accuracy": 0.7, "validation/accuracy/low": 0.6, "validation/accuracy/high": 0.8}
    folder.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = write_card(run).read_text()
    comparison = compare_with_base(folder)
    assert comparison is not None
    assert comparison.gain is Gain.BETTER
    for sentence in comparison.sentences:
        assert sentence in text
    assert "| scenes-scorer | 100% " in text
    assert "| pairs seen | 640 (80 pairs, each 8 times) |" in text
    assert "70% [60%, 80%]" in text


def test_the_best_step_is_named_where_it_is_the_result(tmp_path: Path) -> None:
    run = tmp_path / "run"
    card(run)
    folder = RunFolder.open(run)
    line = {"step": 20, "kind": "evaluation", **figure("reward/scenes-scorer", 1.5)}
    folder.metrics.write_text(folder.metrics.read_text() + json.dumps(line) + "\n")
    best = {"step": 20, "figure": "reward/scenes-scorer", "value": 1.5}
    folder.finished.write_text(json.dumps({"step": 40, "seconds": 1.0, "best": best}))
    text = write_card(run).read_text()
    assert "Right: step 20." in text
    assert "| result | step 20, the best by reward/scenes-scorer (1.5) |" in text
    assert "| metric | better | step 0 | step 20 |" in text


def test_settings_and_measurements(tmp_path: Path) -> None:
    _, text = card(tmp_path / "run", options={"repository": "me/mine"}, entropy_convention="relative")
    for line in (
        "# stable-diffusion-v1-5 aligned with SEE-SPO",
        "(arXiv 2406.04314, arXiv 2411.04712)",
        'pipe.load_lora_weights("me/mine")',
        f'from_pretrained("{HUB}")',
        "| beta | 10 (log-probabilities reduced by mean) |",
        "| gamma | 3 (relative) |",
        "| weights of the loss | a = 40 (policy), b = 10 (reference) |",
        "| clip range | 0.1 |",
        "| loss | sigmoid |",
        "| prompts | scenes-training |",
        "| reward | scenes-scorer |",
        "| steps | 40 of 40 |",
        "| pairs seen | 640 |",
        "| metric | better | step 0 | step 40 |",
        "| reward/scenes-scorer | higher | 1 [0.875, 1.125] | 2 [1.875, 2.125] |",
        "| pairwise_diversity | higher | 0.5 [0.375, 0.625] | 0.25 [0.125, 0.375] |",
        "one training run",
        "![Sample images](grid.png)",
        "Left: step 0. Right: step 40.",
    ):
        assert line in text
    assert "| versions | seedpo 0.1.0, torch 2.13.0 |" in text


def test_keys_that_an_objective_does_not_have_are_left_out(tmp_path: Path) -> None:
    _, text = card(tmp_path / "run", method="flow-grpo", gamma=0.0, beta=0.0)
    assert "aligned with Flow-GRPO" in text
    assert "| beta | 0 (log-probabilities reduced by mean) |" in text
    assert not [name for name in ("loss", "gamma", "weights of the loss") if f"| {name} |" in text]


def test_what_is_counted_is_named_as_the_method_counts_it(tmp_path: Path) -> None:
    likes = {"gamma": 0.0, "pairs": {"from_scores": "likes"}}
    _, text = card(tmp_path / "kto", method="kto", **likes)
    assert "| likes of single images | scenes-pairs |" in text
    assert "| likes seen | " in text
    assert "| groups seen | " in card(tmp_path / "nft", method="nft", gamma=0.0)[1]
    assert "| pairs seen | " in card(tmp_path / "spo")[1]


def test_anchors_and_keys_of_the_objective_are_named(tmp_path: Path) -> None:
    keys = {"objective": {"loser_scale": "pair"}, "anchor": {"kl": 0.5, "toward": "initial"}}
    _, text = card(tmp_path / "run", method="diffusion-dpo", clip_range=None, **keys)
    assert "| objective | loser_scale pair |" in text
    assert "| anchors | 0.5 x distance to the model before training |" in text
    assert "| anchors |" not in card(tmp_path / "usual")[1]


def test_weights_of_roll_outs_are_named(tmp_path: Path) -> None:
    keys = {"second_opinion": ["scenes-plain", "scenes-few"], "features": "pixels", "drop_suspects": True}
    _, text = card(tmp_path / "run", weighting=keys)
    assert "| weighting | second_opinion scenes-plain and scenes-few, drop_suspects True |" in text
    novel = card(tmp_path / "novel", weighting={"novelty": 1.0, "features": "pixels"})[1]
    assert "| weighting | novelty 1.0, features pixels |" in novel
    assert "| weighting |" not in card(tmp_path / "usual")[1]


def test_folders_of_this_machine_are_not_named(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    header, text = card(
        tmp_path / "run", model=str(tmp_path / "base"), prompts=str(tmp_path / "prompts.txt"), method="spo"
    )
    assert "base_model" not in header
    assert str(tmp_path) not in text
    assert "| prompts | prompts.txt |" in text
    assert "# base aligned with" in text
    named = write_card(tmp_path / "run", base_model="owner/base").read_text()
    assert "base_model: owner/base\n" in named


def test_another_autoencoder_is_named(tmp_path: Path) -> None:
    _, text = card(tmp_path / "run", vae="madebyollin/sdxl-vae-fp16-fix")
    assert "| autoencoder | madebyollin/sdxl-vae-fp16-fix |" in text


def test_without_evaluations_there_is_neither_table_nor_picture(tmp_path: Path) -> None:
    card(tmp_path / "run")
    (tmp_path / "run" / "grid.png").unlink()
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    shutil.rmtree(tmp_path / "run" / "samples")
    text = write_card(tmp_path / "run").read_text()
    assert "Evaluation" not in text
    assert "grid.png" not in text
    assert "| steps | 0 of 40 |" in text


def test_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"config\.yaml"):
        write_card(tmp_path)


class TestGrid:
    def test_first_and_last_evaluation_side_by_side(self, tmp_path: Path) -> None:
        card(tmp_path / "run")
        grid = sample_grid(tmp_path / "run" / "samples")
        assert grid is not None
        picture, first, last = grid
        assert (first, last) == (0, 40)
        width, height = 3 * 96, 2 * 96
        assert picture.size == (2 * width + GAP, height)
        assert picture.crop((0, 0, width, height)).getcolors() == [(width * height, (0, 0, 0))]
        assert picture.crop((width, 0, 2 * width + GAP, height)).getextrema() == ((255, 255),) * 3
        with Image.open(tmp_path / "run" / "grid.png") as stored:
            assert stored.size == picture.size

    def test_large_sheets_are_cut_and_shrunk(self, tmp_path: Path) -> None:
        card(tmp_path / "run")
        samples = tmp_path / "run" / "samples"
        index = '{"tile": 300, "columns": 5, "prompts": ["a", "b", "c", "d", "e", "f", "g"]}'
        (samples / "index.json").write_text(index)
        for step in (0, 20, 40):
            Image.new("RGB", (1500, 2100)).save(samples / f"step-{step:06d}.png")
        grid = sample_grid(samples)
        assert grid is not None
        assert grid[0].size == (2 * 4 * 256 + GAP, 6 * 256)

    def test_what_cannot_be_read_is_left_out(self, tmp_path: Path) -> None:
        card(tmp_path / "run")
        for content in ("", "[]", '{"columns": 0, "prompts": []}'):
            (tmp_path / "run" / "samples" / "index.json").write_text(content)
            assert sample_grid(tmp_path / "run" / "samples") is None
