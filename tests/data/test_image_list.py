from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from seedpo.data.image_list import ListedImage, find_images, pixels_of, size_of, with_prompts
from seedpo.errors import DataError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with `a/1.png`, `a/2.png`, `a/10.png`, `b/1.png` and what is no image."""
    monkeypatch.chdir(tmp_path)
    for name in ("a/2.png", "a/10.png", "a/1.png", "b/1.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4), "red").save(path)
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "a" / "._1.png").write_text("of macOS")
    return tmp_path


def names(images: list[ListedImage]) -> list[str]:
    return [image.path.as_posix() for image in images]


class TestFinding:
    def test_in_the_order_in_which_people_count(self, folder: Path) -> None:
        for places, found in [
            (["a"], ["a/1.png", "a/2.png", "a/10.png"]),
            (["."], ["a/1.png", "a/2.png", "a/10.png", "b/1.png"]),
            (["a/*.png"], ["a/1.png", "a/2.png", "a/10.png"]),
            (["**/1.png"], ["a/1.png", "b/1.png"]),
            (["a/10.png", "a/2.png"], ["a/2.png", "a/10.png"]),
            (["b", "a/1.png", "a"], ["a/1.png", "a/2.png", "a/10.png", "b/1.png"]),
            (["a/notes.txt"], ["a/notes.txt"]),  # the user names it: what is wrong with it is said when it is opened
        ]:
            assert names(find_images(places)) == found

    def test_links_are_followed_and_what_is_hidden_is_not(self, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        (folder / "b" / ".ipynb_checkpoints").mkdir()
        Image.new("RGB", (4, 4)).save(folder / "b" / ".ipynb_checkpoints" / "1-checkpoint.png")
        (folder / "elsewhere").mkdir()
        Image.new("RGB", (4, 4)).save(folder / "elsewhere" / "5", format="PNG")
        (folder / "b" / "linked").symlink_to(folder / "elsewhere")
        (folder / "b" / "loop").symlink_to(folder / "b")
        caplog.set_level("INFO")
        assert names(find_images(["b"])) == ["b/1.png", "b/linked/5"]
        assert "hidden folders: 1" in caplog.text
        assert "links back to a folder above: 1" in caplog.text

    def test_images_are_known_by_their_content_too(self, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        Image.new("RGB", (4, 4)).save(folder / "b" / "2.jfif", format="JPEG")
        Image.new("RGB", (4, 4)).save(folder / "b" / "3", format="PNG")
        (folder / "b" / "4.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
        caplog.set_level("INFO")
        assert names(find_images(["b/*"])) == names(find_images(["b"])) == ["b/1.png", "b/2.jfif", "b/3"]
        assert caplog.text.count("HEIC") == 2

    def test_a_folder_of_sample_knows_its_prompts(self, folder: Path) -> None:
        index = [{"file": "10.png", "prompt": "ten"}, {"file": "2.png", "prompt": "two"}]
        (folder / "a" / "index.json").write_text(json.dumps(index))
        assert [(image.path.name, image.prompt) for image in find_images(["a"])] == [
            ("2.png", "two"),
            ("10.png", "ten"),
        ]

    def test_an_index_of_another_system(self, folder: Path) -> None:
        (folder / "a" / "cafe\u0301.png").write_bytes((folder / "a" / "10.png").read_bytes())
        for name in (".\\10.png", "file://" + str(folder.resolve() / "a" / "10.png"), "caf\u00e9.png"):
            (folder / "a" / "index.json").write_text(json.dumps([{"file": name, "prompt": "ten"}]))
            (image,) = find_images(["a"])
            assert image.path.is_file()
            assert image.prompt == "ten"

    def test_an_index_that_cannot_be_used(self, folder: Path) -> None:
        for index, message in [
            ({"tile": 32, "columns": 2, "prompts": ["a"]}, r"a holds sheets of many images; draw single ones"),
            ([{"file": "1.png"}], r"index\.json is not a list of"),
            ([{"file": "3.png", "prompt": "x"}], r"names 3\.png, which is not there"),
            ([], r"names no image"),
        ]:
            (folder / "a" / "index.json").write_text(json.dumps(index))
            with pytest.raises(DataError, match=message):
                find_images(["a"])

    def test_a_place_without_images(self, folder: Path) -> None:
        for place, message in [
            ("c", r"c does not exist"),
            ("a/*.jpg", r"a/\*\.jpg"),
        ]:
            with pytest.raises(DataError, match=message):
                find_images([place])


class TestPrompts:
    def prompts(self, folder: Path, file: str, text: str) -> list[str | None]:
        (folder / file).write_text(text, encoding="utf-8")
        return [image.prompt for image in with_prompts(find_images(["a", "b"]), Path(file))]

    def test_by_order_or_by_name(self, folder: Path) -> None:
        for file, text in [
            ("p.txt", "one\n two \n\nfour\n\n\n"),
            ("p.jsonl", '{"prompt": "one"}\n{"prompt": "two"}\n{"prompt": ""}\n{"prompt": "four"}\n'),
            ("p.csv", "file,prompt\na/10.png,\nb/1.png,four\na/1.png,one\n2.png,two\n"),
            ("p.json", json.dumps(["one", "two", "", "four"])),
            ("p.tsv", "file\tprompt\nb/1.png\tfour\na/1.png\tone\n2.png\ttwo\n10.png\t\n"),
            ("p", '{"prompt": "one"}\n{"prompt": "two"}\n{"prompt": null}\n{"prompt": "four"}\n'),
            ("q.csv", "file_name,caption\n10.png,\n./b/1.png,four\na\\1.png,one\n2.png,two\nother.png,unused\n"),
        ]:
            assert self.prompts(folder, file, text) == ["one", "two", "", "four"]

    def test_what_does_not_fit(self, folder: Path) -> None:
        for file, text, message in [
            ("p.txt", "one\ntwo\n", r"p\.txt holds 2 prompts for 4 images; the first without one is a/10\.png"),
            ("p.txt", "1\n2\n3\n4\n5\n", r"holds 5 prompts for 4 images; the first without an image is '5', number 5"),
            (
                "p.csv",
                "file,prompt\n2.png,two\n",
                r"holds prompts for 1 of 4 images; the first without one is a/1\.png",
            ),
            ("p.csv", "file,prompt\n1.png,one\n", r"'1\.png' could be a/1\.png or b/1\.png; write more of its path"),
            ("p.csv", "file,prompt\n2.png,x\na/2.png,y\n", r"gives 'a/2\.png' two prompts, 'x' and 'y'; keep one"),
            ("p.csv", "file,prompt\n2.png,x\n,y\n", r"the prompt 'y' names no file, though others do"),
            ("p.csv", "file,text\n2.png,x\n", r"line 2 .*\['file', 'text'\]"),
            ("p.jsonl", '{"prompt": "one"}\n[]\n', r"p\.jsonl line 2 is not text but list"),
        ]:
            with pytest.raises(DataError, match=message) as caught:
                self.prompts(folder, file, text)
            assert "\n" not in str(caught.value)

    def test_a_file_that_is_missing(self, folder: Path) -> None:
        with pytest.raises(DataError, match=r"p\.txt does not exist"):
            with_prompts(find_images(["a"]), Path("p.txt"))


def test_names_in_another_unicode_form(folder: Path) -> None:
    (folder / "a" / "1.png").rename(folder / "a" / "cafe\u0301.png")
    for form in ("cafe\u0301", "caf\u00e9"):
        (folder / "p.csv").write_text(f"file,prompt\n{form}.png,x\n2.png,y\n10.png,z\n", encoding="utf-8")
        prompts = {image.path.name: image.prompt for image in with_prompts(find_images(["a"]), Path("p.csv"))}
        assert prompts == {"cafe\u0301.png": "x", "2.png": "y", "10.png": "z"}


def test_an_index_of_anything(folder: Path) -> None:
    for content in (
        "[" * 100_000,
        '[{"file": "1.png", "prompt": "\\ud83d"}]',
        '[{"file": "1.png", "prompt": "\\u0000"}]',
    ):
        (folder / "a" / "index.json").write_text(content)
        with pytest.raises(DataError, match=r"index\.json"):
            find_images(["a"])


def test_heads_and_pixels(folder: Path) -> None:
    assert size_of(Path("a/1.png")) == (4, 4)
    assert pixels_of(Path("a/1.png")).getpixel((0, 0)) == (255, 0, 0)
    for path in (Path("a/notes.txt"), Path("absent.png")):
        for read in (size_of, pixels_of):
            with pytest.raises(DataError, match=path.name):
                read(path)
