"""From folders of images to groups, and the command that does it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from seedpo.cli.study import study_app
from seedpo.errors import ConfigError, DataError, SeedpoError
from seedpo.study.design import Design, asked_lines, asked_units, compare, contrast_of, models_of, new_study
from seedpo.study.folder import Study, open_study
from seedpo.study.image_folders import read_images
from seedpo.study.settings import QUESTIONS

PROMPTS = ("a red cat", "a blue dog", "two green birds")


def paint(path: Path, seed: int, size: int = 16) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)).save(path)
    return path


def evaluation(folder: Path, *, models: Sequence[str] = ("base", "dpo", "see"), images: int = 4) -> Path:
    folder.mkdir(parents=True)
    lines = [json.dumps({"prompt_index": row, "prompt": prompt}) for row, prompt in enumerate(PROMPTS)]
    (folder / "prompts.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    for place, model in enumerate(models):
        for row in range(len(PROMPTS)):
            for image in range(images):
                paint(folder / "images" / model / f"{row:05d}-{image:02d}.png", 1000 * place + 10 * row + image)
    return folder


def samples(folder: Path, *, images: int = 3, seed: int = 0) -> Path:
    files = [(f"{row:03d}-{column:02d}.png", prompt) for row, prompt in enumerate(PROMPTS) for column in range(images)]
    for number, (name, _) in enumerate(files):
        paint(folder / name, seed + number)
    paint(folder / "sheet.png", 999)
    (folder / "index.json").write_text(json.dumps([{"file": f, "prompt": p} for f, p in files]), "utf-8")
    return folder


def made(tmp_path: Path, places: dict[str, Path], **design: object) -> Study:
    values = {"settings": {}, **design}
    return new_study(tmp_path / "study", places, Design(**values), progress=False)  # type: ignore[arg-type]


def test_samples_become_groups_of_all_images_of_a_prompt(tmp_path: Path) -> None:
    study = made(tmp_path, {"x": samples(tmp_path / "x"), "y": samples(tmp_path / "y", seed=50)}, limit_prompts=2)
    assert [group.prompt for group in study.groups] == list(PROMPTS[:2])
    assert [len(group.candidates) for group in study.groups] == [6, 6]
    assert len(study.images) == 12
    assert open_study(tmp_path / "study").groups == study.groups


def test_models_are_compared_as_in_the_paper(tmp_path: Path) -> None:
    study = made(tmp_path, models_of([], evaluation(tmp_path / "e")), kind="study", checks=0.1)
    tasks = [group for group in study.groups if group.expected is None]
    assert len(tasks) == 3 * 3 * 4  # prompts, pairs of models, questions
    first = tasks[0]
    assert [candidate.source for candidate in first.candidates] == ["base", "dpo"]
    sets = [group for group in tasks if group.question == "diversity"]
    assert {len(member.images) for group in sets for member in group.candidates} == {4}
    assert all(len(set(member.images)) == 4 for group in sets for member in group.candidates)
    assert not any(name in group.id for group in study.groups for name in ("base", "dpo", "see"))
    checks = [group for group in study.groups if group.expected is not None]
    assert len(checks) == 4  # 36 pairs / 0.9 * 0.1
    assert {group.question for group in checks} == {"preference", "appeal", "alignment", "diversity"}
    for group in checks:
        assert group.expected is not None
        assert group.candidates[group.expected].source != "check"
        assert group.candidates[1 - group.expected].source == "check"
        other = group.candidates[1 - group.expected].images
        assert other[0] != group.candidates[group.expected].images[0] or len(set(other)) == 1 < len(other)


def test_an_index_of_another_system(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "cafe\u0301.png")
    (tmp_path / "index.json").write_text(json.dumps([{"file": ".\\caf\u00e9.png", "prompt": "a star"}]))
    assert [(item.prompt, len(item.images)) for item in read_images(tmp_path)] == [("a star", 1)]
    (tmp_path / "index.json").write_text(json.dumps([{"file": "absent.png", "prompt": "a star"}]))
    with pytest.raises(DataError, match=r"names absent\.png, which does not exist"):
        read_images(tmp_path)


def test_references_are_the_same_latents_for_all_models_and_drawn_by_the_seed(tmp_path: Path) -> None:
    models = models_of([], evaluation(tmp_path / "e"))
    found = {name: read_images(path) for name, path in models.items()}

    def references(seed: int) -> list[list[str]]:
        laid = compare(found, [QUESTIONS["diversity"]], seed=seed)
        return [[Path(name).name for name in member.images] for group in laid.groups for member in group.candidates]

    assert all(row == other for row, other in zip(references(0)[::2], references(0)[1::2], strict=True))
    assert references(0) == references(0)
    assert references(0) != references(1)


def test_plain_folders_take_their_prompts_from_a_file_or_from_texts_beside(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.csv"
    prompts.write_text("prompt,category\n" + "".join(f"{prompt},hpsv2\n" for prompt in PROMPTS), "utf-8")
    for place, model in enumerate(("a", "b")):
        for row in range(3):
            paint(tmp_path / model / f"{row}.png", 100 * place + row)
    study = made(
        tmp_path, {name: tmp_path / name for name in "ab"}, kind="study", prompts=prompts, questions=["appeal"]
    )
    assert [(group.prompt, group.category) for group in study.groups] == [(prompt, "hpsv2") for prompt in PROMPTS]
    for name in ("cat-1", "cat-2"):
        paint(tmp_path / "beside" / f"{name}.png", len(name) + int(name[-1]))
        (tmp_path / "beside" / f"{name}.txt").write_text("a cat\n", "utf-8")
    (group,) = new_study(tmp_path / "t", {"x": tmp_path / "beside"}, Design(settings={}), progress=False).groups
    assert (group.prompt, [member.source for member in group.candidates]) == ("a cat", ["cat-1.png", "cat-2.png"])


def fails(tmp_path: Path, places: dict[str, Path], said: str, **design: object) -> None:
    with pytest.raises(SeedpoError, match=said):
        made(tmp_path, places, **design)
    assert not (tmp_path / "study").exists()


def test_models_that_cannot_be_compared_are_named(tmp_path: Path) -> None:
    models = models_of([], evaluation(tmp_path / "e", models=("base", "see")))
    fails(tmp_path, {"base": models["base"]}, "at least two models; base", kind="study")
    (models["see"] / "00001-03.png").unlink()
    fails(tmp_path, models, "'a blue dog': base has 4 images and see 3", kind="study")
    for file in models["see"].glob("00001-*"):
        file.unlink()
    fails(tmp_path, models, "see has no image for the prompt 'a blue dog', which base has", kind="study")


def test_sets_need_four_images_and_pairs_two(tmp_path: Path) -> None:
    models = models_of([], evaluation(tmp_path / "e", models=("base", "see"), images=3))
    fails(tmp_path, models, "'diversity' needs 4 images", kind="study")
    made(tmp_path, models, kind="study", questions=["preference"])
    alone = samples(tmp_path / "alone", images=1)
    with pytest.raises(DataError, match="'a red cat' has one image"):
        new_study(tmp_path / "t", {"x": alone}, Design(settings={}), progress=False)


def test_images_that_are_the_same_of_other_sizes_or_damaged_are_named(tmp_path: Path) -> None:
    models = models_of([], evaluation(tmp_path / "e", models=("base", "see"), images=1))
    design = {"kind": "study", "questions": ["preference"]}
    file = models["see"] / "00001-00.png"
    file.write_bytes((models["base"] / "00001-00.png").read_bytes())
    fails(tmp_path, models, "are the same image", **design)
    paint(file, 5, size=20)
    fails(tmp_path, models, "16 x 16 px and .*00001-00.png 20 x 20", **design)
    file.write_bytes(b"no image")
    fails(tmp_path, models, "see/00001-00.png is not an image", **design)
    made(tmp_path, {"x": samples(tmp_path / "x")})  # and nothing of the failures is in the way


def test_options_that_do_not_fit_are_said(tmp_path: Path) -> None:
    place = samples(tmp_path / "x")
    fails(tmp_path, {"x": place}, "--questions taste", questions=["taste"])
    fails(tmp_path, {"x": place}, "--kind study", questions=["diversity"])
    fails(tmp_path, {"x": place}, "--checks and --repeats", checks=0.4, repeats=0.2)
    with pytest.raises(ConfigError, match="--images FOLDER"):
        models_of([], None)
    with pytest.raises(ConfigError, match="the name 'x'"):
        models_of([f"x={place}", str(place)], None)
    with pytest.raises(DataError, match=r"prompts\.jsonl"):
        models_of([], place)


def test_the_command_makes_a_study(tmp_path: Path) -> None:
    folder = str(tmp_path / "study")
    arguments = ["create", folder, "--kind", "study", "--evaluation", str(evaluation(tmp_path / "e")), "--raters", "5"]
    result = CliRunner().invoke(study_app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "36 groups of 3 prompts" in result.output
    assert result.output.count("9 pairs x 5 raters = 45 answers") == 4
    settings = open_study(Path(folder)).settings
    assert (settings.raters_per_pair, settings.checks, settings.kind) == (5, 0.05, "study")
    assert settings.consent
    with pytest.raises(ConfigError, match="not empty"):
        CliRunner().invoke(study_app, arguments, catch_exceptions=False)


@pytest.mark.parametrize(
    ("tournament", "form", "units", "checks"),
    [("full", "pair", 18, 6), ("knockout", "pair", 9, 3), ("full", "single", 12, 4), ("full", "best-worst", 12, 4)],
)
def test_what_is_asked_is_counted(tmp_path: Path, tournament: str, form: str, units: int, checks: int) -> None:
    place = samples(tmp_path / "x", images=4)
    per_view = 3 if form == "best-worst" else None
    settings = {"tournament": tournament, "raters_per_pair": 2}
    study = made(tmp_path, {"x": place}, form=form, per_view=per_view, checks=0.25, settings=settings)
    assert asked_units(study.groups, study.settings) == {"preference": units}
    assert f"= {2 * units} answers" in asked_lines(study)[0]
    assert sum(group.expected is not None for group in study.groups) == min(checks, 3)


def test_the_command_registers_what_the_study_is_made_for(tmp_path: Path) -> None:
    folder, images = str(tmp_path / "study"), str(evaluation(tmp_path / "e"))
    arguments = ["create", folder, "--kind", "study", "--evaluation", images, "--primary", "preference"]
    result = CliRunner().invoke(study_app, [*arguments, "--contrast", "see:base", "--contrast", "dpo:see"])
    assert result.exit_code == 0, result.output
    assert "no primary question" not in result.output
    settings = open_study(Path(folder)).settings
    assert (settings.primary, settings.contrasts) == ("preference", (("see", "base"), ("dpo", "see")))
    result = CliRunner().invoke(study_app, ["create", f"{folder}2", "--kind", "study", "--evaluation", images])
    assert "no primary question" in result.output


def test_an_aim_that_does_not_fit_is_said_in_the_words_of_the_command(tmp_path: Path) -> None:
    places = {name: samples(tmp_path / name, seed=seed) for seed, name in enumerate(("x", "y"))}
    collected, compared = {"primary": "preference"}, {"primary": "beauty"}
    fails(tmp_path, places, "--primary and --contrast are for", settings=collected)
    fails(tmp_path, places, "--primary and --contrast are for", settings={"contrasts": (("x", "y"),)})
    fails(tmp_path, places, "--primary beauty: .*preference, appeal", kind="study", settings=compared)


@pytest.mark.parametrize("text", ["base", "base:other", ":see", "base-see", "base:see:dpo"])
def test_a_contrast_names_two_models(text: str) -> None:
    with pytest.raises(ConfigError, match="--contrast"):
        contrast_of(text, ["base", "see", "dpo"])


def test_names_of_models_in_a_contrast_may_have_colons() -> None:
    assert contrast_of("a:1:a", ["a", "a:1"]) == ("a:1", "a")


# Other forms than pairs.


def test_single_images_and_views_of_models_have_one_group_for_each_prompt(tmp_path: Path) -> None:
    for form, checks, size in (("single", 3, 1), ("best-worst", 1, 3)):
        folder = tmp_path / form
        folder.mkdir()
        study = made(folder, models_of([], evaluation(folder / "e")), kind="study", checks=0.1, form=form)
        assert [(question.key, question.form) for question in study.settings.questions] == [
            (key, form) for key in ("preference", "appeal", "alignment")
        ]
        tasks = [group for group in study.groups if group.expected is None]
        assert [[member.source for member in group.candidates] for group in tasks] == [["base", "dpo", "see"]] * 9
        attention = [group for group in study.groups if group.expected is not None]
        assert [len(group.candidates) for group in attention] == [size] * checks
        for group in attention:
            sources = [member.source for member in group.candidates]
            assert [source == "check" for source in sources] == [
                index == group.expected for index in range(len(sources))
            ]


def test_one_image_of_a_prompt_can_be_liked(tmp_path: Path) -> None:
    study = made(tmp_path, {"x": samples(tmp_path / "x", images=1)}, form="single")
    assert [len(group.candidates) for group in study.groups] == [1, 1, 1]
    assert study.settings.title == "Which images do you like?"


FORMS_THAT_DO_NOT_FIT = [
    ({"form": "best-worst"}, 2, "three: draw more, or use --form pair"),
    ({"form": "best-worst", "per_view": 5}, 4, "--per-view 5: no prompt has more than 4 images"),
    ({"form": "pair", "per_view": 4}, 4, "--per-view is for --form best-worst"),
    ({"form": "single", "questions": ["diversity"]}, 4, "sets are compared in pairs"),
    ({"form": "single", "settings": {"tournament": "knockout"}}, 4, "--tournament knockout is played in pairs"),
    ({"form": "best-worst", "questions": ["taste"]}, 4, "--questions taste"),
]


@pytest.mark.parametrize(("changes", "images", "message"), FORMS_THAT_DO_NOT_FIT)
def test_forms_that_do_not_fit_are_refused_in_one_line(
    tmp_path: Path, changes: dict[str, object], images: int, message: str
) -> None:
    with pytest.raises(SeedpoError, match=message) as caught:
        made(tmp_path, {"x": samples(tmp_path / "x", images=images)}, **changes)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "study").exists()


def test_the_command_takes_a_form(tmp_path: Path) -> None:
    samples(tmp_path / "x", images=6)
    run = CliRunner()
    arguments = [
        "create",
        str(tmp_path / "s"),
        "--images",
        str(tmp_path / "x"),
        "--form",
        "best-worst",
        "--per-view",
        "3",
    ]
    assert run.invoke(study_app, arguments).exit_code == 0
    (question,) = open_study(tmp_path / "s").settings.questions
    assert (question.form, question.per_view, question.choices) == ("best-worst", 3, ("ranked", "skip"))
    wrong = run.invoke(study_app, [*arguments, "--form", "triple"])
    assert isinstance(wrong.exception, ConfigError)
    assert "--form triple" in str(wrong.exception)
