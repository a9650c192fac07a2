"""The folder of a study."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from seedpo.errors import ConfigError, DataError
from seedpo.study.folder import Study, append_groups, create_study, open_study, refreshed
from seedpo.study.images import encode, image_id
from seedpo.study.records import Candidate, Group
from seedpo.study.settings import Question, StudySettings, read_settings, settings_text

SETTINGS = StudySettings(id="s", questions=(Question(key="preference", text="Which?"),), consent="Two\nlines: #1\n")


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8))


def group_of(name: str, *images: str) -> Group:
    candidates = tuple(Candidate(source=f"model {image}", images=(image,)) for image in images)
    return Group(id=name, question="preference", prompt="a cat ☺", candidates=candidates, category="animals")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = {"a": picture(0), "b": picture(1), "same": picture(0)}
    create_study(tmp_path / "s", SETTINGS, [group_of("g0", "a", "b"), group_of("g1", "same", "b")], images)
    return tmp_path / "s"


def test_what_was_created_is_opened(folder: Path) -> None:
    study = open_study(folder)
    assert study.settings == SETTINGS
    assert [group.id for group in study.groups] == ["g0", "g1"]
    assert study.group("g1").prompt == "a cat ☺"
    assert study.group("g0").candidates[0].images == study.group("g1").candidates[0].images  # one file for one content
    assert len(list((folder / "images").iterdir())) == 2
    name = study.group("g0").candidates[1].images[0]
    assert image_id(study.image(name).read_bytes()) == name
    assert study.database_url == f"sqlite:///{folder.resolve() / 'votes.db'}"
    assert study.question("preference").text == "Which?"
    for ask in (study.group, study.image, study.question):
        with pytest.raises(DataError, match="has no"):
            ask("../study.yaml")
    assert not [path for path in folder.parent.iterdir() if path != folder]


def test_copies_hold_pixels_and_nothing_else(tmp_path: Path) -> None:
    info, exif = PngInfo(), Image.Exif()
    info.add_text("parameters", "SECRETMODEL")
    exif[0x0112], exif[0x010E] = 6, "SECRETMODEL"
    picture(0).save(tmp_path / "a.png", pnginfo=info, icc_profile=b"SECRETMODEL", dpi=(72, 72))
    picture(0).save(tmp_path / "b.jpg", exif=exif)
    for name, size in (("a.png", (8, 6)), ("b.jpg", (6, 8))):
        content = encode(tmp_path / name)
        assert b"SECRET" not in content
        with Image.open(io.BytesIO(content)) as image:
            assert (image.mode, image.size, image.info) == ("RGB", size, {})
        assert encode(content) == content
    assert encode(tmp_path / "a.png") == encode(picture(0)) == encode(lambda: picture(0))
    glass = Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    with Image.open(io.BytesIO(encode(glass))) as image:
        assert image.getpixel((0, 0)) == (255, 255, 255)


def test_a_damaged_image_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(encode(picture(0))[:60])
    with pytest.raises(DataError, match=r"broken\.png is not an image that can be read"):
        create_study(
            tmp_path / "s", SETTINGS, [group_of("g", "a", "b")], {"a": tmp_path / "broken.png", "b": picture(1)}
        )
    assert [path.name for path in tmp_path.iterdir()] == ["broken.png"]


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    create_study(tmp_path / "s", SETTINGS, [], {})
    with pytest.raises(ConfigError, match="not empty"):
        create_study(tmp_path / "s", SETTINGS, [], {})


def test_groups_are_appended_and_seen(folder: Path) -> None:
    study = open_study(folder)
    assert refreshed(study) is study
    known = study.group("g0").candidates[0].images[0]
    added = append_groups(folder, [group_of("g2", known, "new")], {"new": picture(2)})
    later = refreshed(study)
    assert later.groups == (*study.groups, *added)
    assert later.image(added[0].candidates[1].images[0]).is_file()
    with pytest.raises(DataError, match="'g2' already"):
        append_groups(folder, [group_of("g2", known, "new")], {"new": picture(2)})
    with pytest.raises(DataError, match="'unheard'"):
        append_groups(folder, [group_of("g3", known, "unheard")], {})
    assert open_study(folder).groups == later.groups


def test_a_torn_last_line_is_passed_over_and_mended(folder: Path) -> None:
    path = folder / "groups.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"id": "g2", "quest')
    study = open_study(folder)
    assert len(study.groups) == 2
    append_groups(folder, [group_of("g2", "new", "newer")], {"new": picture(2), "newer": picture(3)})
    assert path.read_bytes().startswith(whole)
    assert [group.id for group in refreshed(study).groups] == ["g0", "g1", "g2"]
    path.write_bytes(whole.rstrip(b"\n"))  # an editor that writes no end of line
    append_groups(folder, [group_of("g2", "new", "newer")], {"new": picture(2), "newer": picture(3)})
    assert len(open_study(folder).groups) == 3


def test_groups_that_were_edited_meanwhile_are_noticed(folder: Path) -> None:
    study = open_study(folder)
    path = folder / "groups.jsonl"
    path.write_text(path.read_text("utf-8").replace("a cat", "a brown cat", 1), "utf-8")
    with pytest.raises(DataError, match="was edited"):
        refreshed(study)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"form": "single", "shows": "set"}, "sets are compared in pairs"),
        ({"form": "best-worst", "shows": "set"}, "sets are compared in pairs"),
        ({"form": "best-worst", "choices": ["ranked", "tie"]}, "choices of 'q'"),
        ({"form": "single", "tournament": "knockout"}, "set tournament: full"),
        ({"form": "best-worst", "tournament": "knockout"}, "set tournament: full"),
    ],
)
def test_forms_that_do_not_fit_the_other_keys(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    tournament = changes.pop("tournament", "full")
    values = {"id": "s", "tournament": tournament, "questions": [{"key": "q", "text": "?", **changes}]}
    (tmp_path / "study.yaml").write_text(json.dumps(values), "utf-8")
    with pytest.raises(ConfigError, match=message) as caught:
        open_study(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_fewest_candidates_depend_on_the_form(tmp_path: Path) -> None:
    questions = (
        Question(key="one", text="?", form="single"),
        Question(key="several", text="?", form="best-worst"),
    )
    settings = StudySettings(id="s", questions=questions)
    images = {str(number): picture(number) for number in range(3)}

    def made(question: str, count: int, expected: int | None = None) -> Study:
        candidates = tuple(Candidate(source="m", images=(str(number),)) for number in range(count))
        group = Group(id="g", question=question, prompt="p", candidates=candidates, expected=expected)
        return create_study(tmp_path / f"{question}-{count}-{expected}", settings, [group], images)

    assert len(made("one", 1, expected=0).groups[0].candidates) == 1
    assert len(made("several", 2).groups[0].candidates) == 2
    assert open_study(made("several", 3, expected=2).folder).groups[0].expected == 2
    with pytest.raises(DataError, match=r"needs at least 2"):
        made("several", 1)
    with pytest.raises(DataError, match=r"best-worst, an attention check\) needs at least 3"):
        made("several", 2, expected=1)


BROKEN_GROUPS: dict[str, Callable[[dict[str, Any]], object]] = {
    "id 'g0'": lambda group: group.update(id="g0"),
    "key promt": lambda group: group.update(promt="x"),
    "prompt is missing": lambda group: group.pop("prompt"),
    "prompt is 3": lambda group: group.update(prompt=3),
    "question 'taste'": lambda group: group.update(question="taste"),
    "expected is 2": lambda group: group.update(expected=2),
    "expected is -1": lambda group: group.update(expected=-1),
    "expected is True": lambda group: group.update(expected=True),
    r"candidates has 1; a group \(pair\)": lambda group: group["candidates"].pop(),
    "candidates is": lambda group: group.update(candidates=[]),
    "id is ''": lambda group: group.update(id=""),
    r"candidates.1.images.0 is '../x'": lambda group: group["candidates"][1].update(images=["../x"]),
    "candidates.1.images is": lambda group: group["candidates"][1].update(images=[]),
    "candidates.0.model": lambda group: group["candidates"][0].update(model="x"),
    "image 0+ is missing": lambda group: group["candidates"][1].update(images=["0" * 32]),
    "candidates.images": lambda group: group["candidates"][0]["images"].append("0" * 32),
}


def test_an_edit_that_breaks_groups_is_named_with_line_and_key(folder: Path) -> None:
    path = folder / "groups.jsonl"
    first, second = path.read_text("utf-8").splitlines()
    broken = {"JSON": second[:-3], "object": "[1]"}
    for message, edit in BROKEN_GROUPS.items():
        values = json.loads(second)
        edit(values)
        broken[message] = json.dumps(values)
    for message, line in broken.items():
        path.write_text(f"{first}\n{line}\n", "utf-8")
        with pytest.raises(DataError, match=f"line 2.*{message}"):
            open_study(folder)


def test_an_image_that_was_exchanged_or_removed_is_named(folder: Path) -> None:
    study = open_study(folder)
    path = study.image(study.group("g0").candidates[0].images[0])
    path.write_bytes(encode(picture(9)))
    with pytest.raises(DataError, match=path.name):
        open_study(folder)
    open_study(folder, verify=False)
    path.unlink()
    with pytest.raises(DataError, match=r"line 1: image .* is missing"):
        open_study(folder, verify=False)


BROKEN_SETTINGS = [
    ("title:", "titel:", r"line \d+.*titel"),
    ("raters_per_pair: 1", "raters_per_pair: 0", r"line \d+: raters_per_pair is 0"),
    ("seed: 0", "seed: 0\nseed: 1", r"line \d+ .*seed"),
    ("id: s\n", "", "id is missing"),
    ("id: s\n", "id: ' '\n", r"line \d+: id"),
    ("repeats: 0.0", "repeats: [", r"line \d+ is not YAML"),
    ("repeats: 0.0\n", "repeats: 0.4\nchecks: 0.2\n", r"line \d+"),
    ("key: preference", "key: two words", r"line \d+: question key 'two words'"),
    ("  - left\n", "", r"line \d+: choices of 'preference'"),
    ("  form: pair\n", "  form: triple\n", r"line \d+: questions.0.form is 'triple'"),
    ("  form: pair\n", "  form: single\n", r"line \d+: choices of 'preference' \(form single\) need dislike and like"),
    ("  per_view: 4\n", "  per_view: 2\n", r"line \d+: questions.0.per_view is 2"),
    ("  - left\n", "  - above\n", r"line \d+: questions.0.choices.0 is 'above'"),
]


def test_an_edit_that_breaks_settings_is_named_with_line_and_key(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    text = settings_text(SETTINGS)
    path.write_text(text.replace("checks: 0.0", "checks: 0.3", 1), "utf-8")
    assert read_settings(path).checks == 0.3
    for old, new, message in BROKEN_SETTINGS:
        assert old in text
        path.write_text(text.replace(old, new, 1), "utf-8")
        with pytest.raises(ConfigError, match=message):
            read_settings(path)


def test_settings_explain_each_key_and_come_back(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(settings_text(SETTINGS), "utf-8")
    assert read_settings(path) == SETTINGS
    assert set(yaml.safe_load(path.read_text("utf-8"))) == set(StudySettings.model_fields)
    text = path.read_text("utf-8")
    assert all(f"\n\n# {field.description[:20]}" in text for field in StudySettings.model_fields.values())  # type: ignore[index]
    with pytest.raises(ConfigError, match="seedpo study create"):
        read_settings(tmp_path / "other" / "study.yaml")
