from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from seedpo.errors import DataError
from seedpo.rewards.named import build_reward
from seedpo.rewards.user_code import user_reward

IMAGES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
PROMPTS = ["a", "b", "c"]

Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes modules into the current folder, and forgets them afterwards."""
    names: list[str] = []
    monkeypatch.chdir(tmp_path)

    def write_module(name: str, code: str) -> None:
        names.append(name)
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")

    yield write_module
    user_reward.cache_clear()
    for name in names:
        sys.modules.pop(name, None)


def test_a_function_in_the_current_folder(write: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    write("brightness_of_mine", "def bright(images, prompts):\n    return images.mean((1, 2, 3)).double()\n")
    before = list(sys.path)
    reward = build_reward("brightness_of_mine:bright")
    assert sys.path == before
    assert not reward.step_aware
    scores = reward(IMAGES, PROMPTS)
    torch.testing.assert_close(scores, IMAGES.mean((1, 2, 3)))
    assert scores.dtype == torch.float32
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == f"reward brightness_of_mine:bright: the code of {tmp_path / 'brightness_of_mine.py'} is run"


def test_it_is_imported_once(write: Write, tmp_path: Path) -> None:
    write("counted_module", "from pathlib import Path\nwith Path('runs.txt').open('a') as file:\n    file.write('x')\n")
    with pytest.raises(DataError, match="unknown function of"):
        build_reward("counted_module:f")
    with pytest.raises(DataError, match="unknown function of"):
        build_reward("counted_module:f")
    assert (tmp_path / "runs.txt").read_text() == "x"


def test_what_is_installed_goes_before_the_current_folder(write: Write) -> None:
    write("colorsys", "def rgb_to_hsv(images, prompts):\n    return images.mean((1, 2, 3))\n")
    sys.modules.pop("colorsys", None)
    assert "colorsys.py" in user_reward("colorsys:rgb_to_hsv").file
    assert str(Path.cwd()) not in user_reward("colorsys:rgb_to_hsv").file


def test_a_parameter_timestep_makes_it_step_aware(write: Write) -> None:
    write("late_module", "def late(images, prompts, timestep=None):\n    return -timestep.float()\n")
    reward = build_reward("late_module:late")
    assert reward.step_aware
    assert reward(IMAGES, PROMPTS, timestep=torch.tensor([1, 2, 3])).tolist() == [-1.0, -2.0, -3.0]


def test_pil_images_of_mixed_sizes_come_as_tensors_of_one_size(write: Write) -> None:
    write(
        "shapes_module", "def width(images, prompts):\n    return images.new_full((len(images),), images.shape[-1])\n"
    )
    images = [Image.new("RGB", size) for size in ((4, 6), (5, 6), (4, 6))]
    assert build_reward("shapes_module:width")(images, PROMPTS).tolist() == [4.0, 5.0, 4.0]


WRONG = """
import torch
number = 3
class Scorer:
    pass
def pairs(images, prompts):
    return torch.zeros(len(images), len(images))
def one(images, prompts):
    return torch.zeros(())
def listed(images, prompts):
    return [0.0] * len(images)
def nan(images, prompts):
    return torch.tensor([0.0, float("nan"), 0.0])
def truth(images, prompts):
    return torch.ones(len(images)) > 0
def failing(images, prompts):
    return images.nothing
def alone(images):
    return images
"""


def test_what_is_wrong_is_said_in_one_line(write: Write) -> None:
    for name, message in [
        ("absent_module:f", r"reward absent_module:f: there is no module absent_module; write absent_module\.py in "),
        ("wrong_module:pair", r"unknown function of .*wrong_module\.py 'pair'; did you mean 'pairs'\?"),
        ("wrong_module:number", r"reward wrong_module:number is of type int, not a function; write `def number\("),
        ("wrong_module:Scorer", r"reward wrong_module:Scorer is a class, not a function"),
        ("wrong_module:pairs", r"wrong_module:pairs .*\(3, 3\) for 3 images.*\(3,\)"),
        ("wrong_module:one", r"\(\) for 3 images"),
        ("wrong_module:listed", r"reward wrong_module:listed .*list"),
        ("wrong_module:nan", r"reward wrong_module:nan .*nan for image 1, .*'b'"),
        ("wrong_module:truth", r"bool"),
        (
            "wrong_module:failing",
            r"failed with AttributeError: .*'nothing'.*wrong_module\.py",
        ),
        ("wrong_module:alone", r"failed with TypeError: alone\(\) takes 1 positional argument but 2 were given"),
        ("broken_module:f", r"reward broken_module:f: importing broken_module failed with ZeroDivisionError"),
        ("needing_module:f", r"its module needing_module needs not_there_at_all, which is not installed"),
    ]:
        write("wrong_module", WRONG)
        write("broken_module", "1 / 0\n")
        write("needing_module", "import not_there_at_all\n")
        with pytest.raises(DataError, match=message) as caught:
            build_reward(name)(IMAGES, PROMPTS)
        assert "\n" not in str(caught.value)
