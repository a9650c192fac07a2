from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from seedpo.data.reading import read_pairs
from seedpo.data.settings import PairsConfig
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


class TestNames:
    @pytest.mark.parametrize(("chosen", "rejected"), [("cafe\u0301", "caf\u00e9"), ("caf\u00e9", "cafe\u0301")])
    def test_from_a_mac_fit_those_from_elsewhere(self, tmp_path: Path, chosen: str, rejected: str) -> None:
        for side, name, colour in (("chosen", chosen, RED), ("rejected", rejected, BLUE)):
            write_images(tmp_path / side, **{f"{name}__png": image_file(colour)})
        (tmp_path / "captions.csv").write_text(f"file_name,prompt\n{rejected}.png,a\n", encoding="utf-8")
        pairs = read_pairs(tmp_path)
        assert [pairs[row].prompt for row in range(len(pairs))] == ["a"]
        torch.testing.assert_close(pairs[0].rejected, plain(BLUE))
        (tmp_path / "rejected" / f"{rejected}.txt").write_text("b")
        assert read_pairs(tmp_path)[0].prompt == "b"

    def test_of_one_side_in_two_forms(self, tmp_path: Path) -> None:
        for name in ("cafe\u0301", "caf\u00e9"):
            write_images(tmp_path / "chosen", **{f"{name}__png": image_file(RED), f"{name}__txt": b"a"})
        write_images(tmp_path / "rejected", **{f"{name}__png": image_file(BLUE)})
        pairs = read_pairs(tmp_path)
        assert len(pairs) == 1
        with pytest.raises(DataError, match=r"chosen/ must hold one image of this name"):
            pairs[0]

    def test_with_dots(self, tmp_path: Path) -> None:
        write_images(tmp_path / "chosen", **{"v1.5_a__png": image_file(RED), "v1.5_a__txt": b"a"})
        write_images(tmp_path / "rejected", **{"v1.5_a__jpg": image_file(BLUE)})
        assert read_pairs(tmp_path)[0].prompt == "a"


class TestLayouts:
    def test_of_kohyas_scripts(self, tmp_path: Path) -> None:
        for side, colour in (("w", RED), ("l", BLUE)):
            write_images(tmp_path / side, one__png=image_file(colour), two__png=image_file(colour))
        (tmp_path / "w" / "one.caption").write_text("a")
        (tmp_path / "metadata.jsonl").write_text('{"file_name": "l/two.png", "prompt": "b"}\n')
        pairs = read_pairs(tmp_path)
        assert [pairs[row].prompt for row in range(2)] == ["a", "b"]
        torch.testing.assert_close(pairs[0].chosen, plain(RED))
        torch.testing.assert_close(pairs[1].rejected, plain(BLUE))

    @pytest.mark.parametrize("above", ["", "data/"])
    @pytest.mark.parametrize("names", [("train", "test"), ("training_set", "val"), ("split=train", "dev")])
    def test_of_splits(self, tmp_path: Path, above: str, names: tuple[str, str]) -> None:
        for name, prompt in zip(names, ("mine", "theirs"), strict=True):
            write_images(tmp_path / above / name / "chosen", x__png=image_file(RED), x__txt=prompt.encode())
            write_images(tmp_path / above / name / "rejected", x__png=image_file(BLUE))
        other = names[1]
        assert [
            pair.prompt for pair in (read_pairs(tmp_path)[0], read_pairs(tmp_path, PairsConfig(split=other))[0])
        ] == [
            "mine",
            "theirs",
        ]
        assert read_pairs(tmp_path).inventory.passed_counts == {f"folders of the split {other}": 1}
        assert read_pairs(tmp_path / above / other)[0].prompt == "theirs"
        shutil.rmtree(tmp_path / above / names[0])
        with pytest.raises(DataError, match=r"none is for training; set pairs\.split"):
            read_pairs(tmp_path, PairsConfig())

    def test_captions_of_all_splits_in_one_file(self, tmp_path: Path) -> None:
        records = []
        for split in ("train", "test"):
            for side, colour in (("chosen", RED), ("rejected", BLUE)):
                write_images(tmp_path / split / side, x__png=image_file(colour))
            records.append(f'{{"file_name": "{split}/chosen/x.png", "prompt": "{split}"}}')
        (tmp_path / "metadata.jsonl").write_text("\n".join(records))
        assert read_pairs(tmp_path)[0].prompt == "train"
        assert read_pairs(tmp_path, PairsConfig(split="test"))[0].prompt == "test"

    def test_a_table_whose_images_lie_in_such_folders_is_read_as_a_table(self, tmp_path: Path) -> None:
        write_images(tmp_path / "im" / "chosen", x__png=image_file(RED))
        write_images(tmp_path / "im" / "rejected", x__png=image_file(BLUE))
        (tmp_path / "pairs.jsonl").write_text(
            '{"prompt": "a", "chosen": "im/chosen/x.png", "rejected": "im/rejected/x.png"}\n'
        )
        assert read_pairs(tmp_path)[0].prompt == "a"

    def test_several_sets_of_one_split(self, tmp_path: Path) -> None:
        for name in ("en/train", "fr/train"):
            for side in ("chosen", "rejected"):
                write_images(tmp_path / name / side, x__png=image_file(RED), x__txt=b"a")
        with pytest.raises(DataError, match=r"several sets, en/train, fr/train; name one of them"):
            read_pairs(tmp_path)


class TestWhatIsPassedOver:
    def test_is_counted(self, root: Path) -> None:
        prompts(root, one="a", two="b", other="of no image")
        write_images(root / "chosen" / ".ipynb_checkpoints", one__png=image_file(BLUE))
        write_images(root / "chosen", ___one__jpg=b"?", Thumbs__db=b"?", three__heic=b"\0\0\0\x18ftypheic" + bytes(40))
        write_images(root, readme__md=b"?", pairs__parquet=b"?")
        write_images(root / "extra", one__png=image_file(BLUE))
        (root / "chosen" / "loop").symlink_to(root / "chosen")
        pairs = read_pairs(root)
        assert len(pairs) == 2
        counts = pairs.inventory.passed_counts
        assert counts.pop("hidden folders") == 1
        assert sorted(counts.values()) == [1, 1, 1, 1, 1, 1, 2]
        assert any("HEIC" in reason for reason in counts)
        assert counts["captions of no image"] == counts["other folders"] == 1
        assert counts["files beside the folders"] == 2

    def test_linked_folders_are_followed(self, tmp_path: Path) -> None:
        for side, colour in (("chosen", RED), ("rejected", BLUE)):
            write_images(tmp_path / "elsewhere" / side, one__png=image_file(colour), one__txt=b"a")
            write_images(tmp_path / "set" / side, top__png=image_file(colour), top__txt=b"b")
            (tmp_path / "set" / side / "batch").symlink_to(tmp_path / "elsewhere" / side)
        pairs = read_pairs(tmp_path / "set")
        assert [pairs[row].prompt for row in range(len(pairs))] == ["a", "b"]

    def test_an_image_whatever_its_name_is_not(self, tmp_path: Path) -> None:
        for side, colour in (("chosen", RED), ("rejected", BLUE)):
            write_images(tmp_path / side, one=image_file(colour), two__jpg_large=image_file(colour), one__txt=b"a")
            write_images(tmp_path / side, **{"two.jpg_large__txt": b"b"})
        pairs = read_pairs(tmp_path)
        assert [pairs[row].prompt for row in range(len(pairs))] == ["a", "b"]

    def test_an_image_of_no_format_is_named_beside_its_partner(self, root: Path) -> None:
        prompts(root, one="a", two="b", three="c")
        write_images(root / "chosen", three__heic=b"\0\0\0\x18ftypheic" + bytes(40))
        write_images(root / "rejected", three__png=image_file(BLUE))
        pairs = read_pairs(root)
        with pytest.raises(DataError, match=r"pair three: chosen/ must hold one image .* it holds three\.heic"):
            pairs[1]
        assert (pairs.inventory.rows, pairs.inventory.used, pairs.inventory.left_out) == (3, 2, {"faulty": 1})

    def test_lines_of_captions(self, root: Path) -> None:
        (root / "metadata.jsonl").write_text(
            '{"file_name": "one.png", "prompt": "a"}\n{"file_name": "two.png", "prompt": "b"}\n'
            '{"file_name": "two.png", "prompt": "c"}\n{"file_name": "gone.png", "prompt": "d"}\n{broken\n'
        )
        pairs = read_pairs(root)
        assert pairs[0].prompt == "a"
        with pytest.raises(DataError, match=r"pair two: the captions give it 2 different prompts"):
            pairs[1]
        assert [note.partition("(")[0] for note in pairs.inventory.notes[1:]] == [
            "lines of captions that cannot be used: 1 ",
            "lines of captions of no image: 1 ",
        ]


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
