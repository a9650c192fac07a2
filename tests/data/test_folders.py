from __future__ import annotations

from pathlib import Path

import pytest
import torch

from seedpo.data.reading import read_pairs
from seedpo.errors import DataError
from tests.data.pictures import BLUE, RED, image_file, plain, write_images


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two pairs, without prompts."""
    write_images(tmp_path / "chosen", one__png=image_file(RED), two__PNG=image_file(BLUE))
    write_images(tmp_path / "rejected", one__png=image_file(BLUE), two__webp=image_file(RED))
    return tmp_path


def prompts(root: Path, **texts: str) -> None:
    for name, text in texts.items():
        (root / "chosen" / f"{name}.txt").write_text(text, encoding="utf-8")


class TestPairs:
    def test_files_of_equal_names_whatever_their_endings(self, root: Path) -> None:
        prompts(root, one="a star\n", two="\ufeff日本")
        pairs = read_pairs(root)
        assert [pairs[row].prompt for row in range(len(pairs))] == ["a star", "日本"]
        torch.testing.assert_close(pairs[0].chosen, plain(RED))
        torch.testing.assert_close(pairs[1].rejected, plain(RED))
        assert all(pairs[row].chosen_probability == 1.0 for row in range(2))

    def test_subfolders_are_part_of_the_name(self, tmp_path: Path) -> None:
        for side, colour in (("chosen", RED), ("rejected", BLUE)):
            for sub in ("x", "y"):
                write_images(tmp_path / side / sub, one__png=image_file(colour), one__txt=sub.encode())
        pairs = read_pairs(tmp_path)
        assert [pairs[row].prompt for row in range(len(pairs))] == ["x", "y"]

    def test_what_systems_leave_beside_images(self, root: Path) -> None:
        prompts(root, one="a", two="b")
        write_images(root / "chosen", Thumbs__db=b"?")
        (root / "chosen" / "._one.jpg").write_bytes(b"resource fork")
        assert len(read_pairs(root)) == 2

    def test_the_folder_may_be_relative(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        prompts(root, one="a", two="b")
        monkeypatch.chdir(root.parent)
        torch.testing.assert_close(read_pairs(root.name)[0].chosen, plain(RED))

    def test_prompts_beside_the_rejected_images(self, root: Path) -> None:
        for name in ("one", "two"):
            (root / "rejected" / f"{name}.txt").write_text(name)
        assert read_pairs(root)[1].prompt == "two"

    @pytest.mark.parametrize(
        ("file", "content"),
        [
            (
                "metadata.jsonl",
                '{"file_name": "one.png", "prompt": "a"}\n{"file_name": "chosen/two.PNG", "caption": "b"}',
            ),
            ("captions.csv", "file_name,prompt\none.png,a\nrejected/two.webp,b\n"),
            ("captions.csv", "file_name,caption\none,a\ntwo,b\n"),
        ],
    )
    def test_prompts_in_one_file(self, root: Path, file: str, content: str) -> None:
        (root / file).write_text(content)
        pairs = read_pairs(root)
        assert [pairs[row].prompt for row in range(2)] == ["a", "b"]

    def test_a_text_beside_the_image_wins(self, root: Path) -> None:
        (root / "captions.csv").write_text("file_name,prompt\none.png,a\ntwo,b\n")
        prompts(root, one="mine")
        assert [read_pairs(root)[row].prompt for row in range(2)] == ["mine", "b"]


class TestRefusals:
    def test_a_pair_without_a_prompt(self, root: Path) -> None:
        prompts(root, one="a")
        pairs = read_pairs(root)
        assert pairs[0].prompt == "a"
        with pytest.raises(DataError, match=r"pair two: there is no prompt; write it into chosen/two\.txt"):
            pairs[1]

    @pytest.mark.parametrize("captions", [{}, {"captions.csv": "file_name,prompt\n"}])
    def test_no_prompt_at_all(self, root: Path, captions: dict[str, str]) -> None:
        for name, content in captions.items():
            (root / name).write_text(content)
        with pytest.raises(
            DataError, match=r"holds 2 pairs and no caption; write it into chosen/one\.txt, or a line for it into meta"
        ):
            read_pairs(root)

    def test_an_image_without_a_partner(self, root: Path) -> None:
        prompts(root, one="a", two="b", three="c")
        write_images(root / "rejected", three__png=image_file(RED))
        pairs = read_pairs(root)
        assert len(pairs) == 3
        with pytest.raises(DataError, match="pair three: chosen/ must hold one image of this name; it holds none"):
            pairs[1]

    def test_two_images_of_one_name(self, root: Path) -> None:
        prompts(root, one="a", two="b")
        write_images(root / "chosen", one__jpg=image_file(RED))
        with pytest.raises(DataError, match=r"pair one: chosen/ must .*; it holds one\.jpg and one\.png"):
            read_pairs(root)[0]

    def test_two_prompts(self, root: Path) -> None:
        prompts(root, one="a", two="b")
        (root / "rejected" / "one.txt").write_text("other")
        with pytest.raises(DataError, match=r"pair one: .* hold different prompts; keep one"):
            read_pairs(root)[0]

    @pytest.mark.parametrize("side", ["chosen", "rejected"])
    def test_one_folder_is_missing(self, root: Path, side: str) -> None:
        (root / side).rename(root / "other")
        with pytest.raises(DataError, match=rf"lacks the folder {side}; it holds .*other/"):
            read_pairs(root)

    def test_a_folder_without_images(self, tmp_path: Path) -> None:
        for side in ("chosen", "rejected"):
            write_images(tmp_path / side, one__dat=b"?")
        with pytest.raises(DataError, match=r"chosen holds no image"):
            read_pairs(tmp_path)

    @pytest.mark.parametrize("line", ['{"file": "one.png", "prompt": "a"}', '{"file_name": "one.png"}', "broken"])
    def test_captions_of_another_kind(self, root: Path, line: str) -> None:
        (root / "metadata.jsonl").write_text('{"file_name": "two.png", "prompt": "b"}\n' + line)
        pairs = read_pairs(root)
        assert pairs[1].prompt == "b"
        with pytest.raises(
            DataError, match=r"pair one: there is no prompt \(.*metadata\.jsonl line 2 (has \[|is not JSON)"
        ):
            pairs[0]
        assert any("cannot be used: 1" in note for note in pairs.inventory.notes)
        (root / "metadata.jsonl").write_text(line)
        with pytest.raises(DataError, match=r"metadata\.jsonl (line 1 has \[|is not JSON lines)"):
            read_pairs(root)
