from __future__ import annotations

import base64
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
import webdataset
from webdataset.tariterators import group_by_keys, tar_file_expander

from seedpo.data.files.splits import SplitWish
from seedpo.data.reading import read_pairs
from seedpo.data.settings import PairsConfig
from seedpo.errors import DataError, StreamError
from tests.data.pictures import BLUE, GREEN, RED, image_file, plain


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def sample(key: str, prompt: str = "a star", chosen: Any = RED, rejected: Any = BLUE) -> dict[str, bytes]:
    return {
        f"{key}.prompt.txt": prompt.encode(),
        f"{key}.chosen.png": image_file(chosen),
        f"{key}.rejected.webp": image_file(rejected),
    }


IN_ORDER = PairsConfig(resolution=8, shuffle_buffer=1)


def prompts(pairs: Any) -> list[str]:
    return [pairs.prompt(row) for row in pairs.one_pass()]


class TestSamples:
    def test_files_that_share_their_name_up_to_the_first_dot(self, tmp_path: Path) -> None:
        path = write_tar(tmp_path / "a.tar", sample("x/0001") | sample("x/0002", "a ring", GREEN, RED))
        pairs = read_pairs(path, IN_ORDER)
        assert prompts(pairs) == ["a star", "a ring"]
        torch.testing.assert_close(pairs[1].chosen, plain(GREEN, size=(8, 8)))
        torch.testing.assert_close(pairs[1].rejected, plain(RED, size=(8, 8)))

    def test_shards_in_order(self, tmp_path: Path) -> None:
        for number in range(3):
            write_tar(tmp_path / f"shard-{number:03d}.tar", sample("0", f"prompt {number}"))
        for spec in (tmp_path, f"{tmp_path}/shard-{{000..002}}.tar", f"{tmp_path}/shard-*.tar"):
            assert prompts(read_pairs(spec, IN_ORDER)) == [f"prompt {number}" for number in range(3)]

    def test_each_pass_has_an_order_of_its_own_that_the_seed_decides(self, tmp_path: Path) -> None:
        for number in range(6):
            files = sample("0", f"{number} 0") | sample("1", f"{number} 1")
            write_tar(tmp_path / f"{number}.tar", files)
        config = PairsConfig(resolution=8, shuffle_buffer=4)
        orders = []
        for seed in (0, 0, 1):
            pairs = read_pairs(tmp_path, config, seed=seed)
            orders.append([pairs.prompt(row) for row in range(24)])
        assert orders[0] == orders[1] != orders[2]
        first, second = orders[0][:12], orders[0][12:]
        assert first != second
        assert sorted(first) == sorted(second)
        assert len(set(first)) == 12
        assert [prompt[0] for prompt in first] != sorted(prompt[0] for prompt in first), "the files are shuffled too"

    def test_what_webdataset_writes(self, tmp_path: Path) -> None:
        """And what it reads there is what is read here."""
        path = tmp_path / "a.tar"
        with webdataset.TarWriter(str(path)) as writer:
            for number in range(4):
                writer.write(
                    {
                        "__key__": f"{number:04d}",
                        "chosen.png": image_file((50 * number, 0, 0)),
                        "rejected.png": image_file(BLUE),
                        "json": {"caption": f"prompt {number}", "chosen_probability": 0.5 if number == 2 else 1},
                    }
                )
        pairs = read_pairs(path, PairsConfig(resolution=8, shuffle_buffer=1, ties="half"))
        with path.open("rb") as stream:
            for row, theirs in enumerate(group_by_keys(tar_file_expander([{"url": str(path), "stream": stream}]))):
                values = json.loads(theirs["json"])
                ours = pairs[row]
                assert ours.prompt == values["caption"]
                assert ours.chosen_probability == values["chosen_probability"]
                torch.testing.assert_close(ours.chosen, plain((50 * row, 0, 0), size=(8, 8)))
        assert row == 3
        assert len(prompts(read_pairs(path, IN_ORDER))) == 3

    def test_hidden_folders_and_those_of_systems_are_passed_over(self, tmp_path: Path) -> None:
        old = [sample(f"{folder}/1", "old") for folder in (".ipynb_checkpoints", "a/.cache", "__MACOSX")]
        files = {name: content for part in old for name, content in part.items()} | sample("./a/0") | sample("../b/0")
        assert prompts(read_pairs(write_tar(tmp_path / "a.tar", files), IN_ORDER)) == ["a star"] * 2

    def test_splits_that_folders_in_an_archive_tell(self, tmp_path: Path) -> None:
        files = sample("train/0", "mine") | sample("test/0", "theirs") | sample("train/1", "mine too")
        path = write_tar(tmp_path / "a.tar", files)
        pairs = read_pairs(path, IN_ORDER)
        assert prompts(pairs) == ["mine", "mine too"]
        assert pairs.inventory.notes == ("split: train; not read: test",)
        assert prompts(read_pairs(path, IN_ORDER.model_copy(update={"split": "test"}))) == ["theirs"]
        assert prompts(read_pairs(path, IN_ORDER, wish=SplitWish(held_out=True))) == ["theirs"]
        for split in ("val", "banana"):
            with pytest.raises(DataError, match=f"no split '{split}'"):
                read_pairs(path, IN_ORDER.model_copy(update={"split": split}))
        path = write_tar(tmp_path / "b.tar", sample("test/0") | sample("contest/0"))
        with pytest.raises(DataError, match="none is for training"):
            read_pairs(path, IN_ORDER)

    def test_other_files_are_left_alone(self, tmp_path: Path) -> None:
        extra = {"0.cls": b"3", "0.embedding.npy": b"?", "README": b"hello", ".hidden": b"?"}
        pairs = read_pairs(write_tar(tmp_path / "a.tar", extra | sample("0")), IN_ORDER)
        assert prompts(pairs) == ["a star"]


class TestNames:
    """Every file of a sample is a column by its name."""

    def pairs(self, tmp_path: Path, files: dict[str, bytes], **settings: Any) -> Any:
        config = PairsConfig(resolution=8, shuffle_buffer=1, **settings)
        return read_pairs(write_tar(tmp_path / "a.tar", files), config)

    def test_images_of_any_ending(self, tmp_path: Path) -> None:
        kinds = {"avif": "AVIF", "jfif": "JPEG", "jp2": "JPEG2000", "PNG": "PNG", "dat": "PNG", "bin": "WEBP"}
        files: dict[str, bytes] = {}
        for number, (ending, kind) in enumerate(kinds.items()):
            files[f"{number}.chosen.{ending}"] = image_file(RED, kind=kind, size=(8, 8))
            files[f"{number}.rejected"] = image_file(BLUE, kind=kind, size=(8, 8))
            files[f"{number}.txt"] = b"a star"
        pairs = self.pairs(tmp_path, files)
        assert len(prompts(pairs)) == len(kinds)
        for row in range(len(kinds)):
            torch.testing.assert_close(pairs[row].chosen, plain(RED, size=(8, 8)), atol=0.1, rtol=0)
            torch.testing.assert_close(pairs[row].rejected, plain(BLUE, size=(8, 8)), atol=0.1, rtol=0)

    def test_a_file_of_unknown_kind_beside_the_image_is_left_alone(self, tmp_path: Path) -> None:
        pairs = self.pairs(
            tmp_path, sample("0") | {"0.chosen.npy": b"?", "0.chosen.txt": b"a note", "0.chosen.json": b"?"}
        )
        torch.testing.assert_close(pairs[0].chosen, plain(RED, size=(8, 8)))

    def test_an_image_that_is_not_read_is_named(self, tmp_path: Path) -> None:
        files = {key: content for key, content in sample("0").items() if "chosen" not in key}
        pairs = self.pairs(tmp_path, files | {"0.chosen.heic": b"\0\0\0\x18ftypheic" + bytes(20)})
        with pytest.raises(DataError, match="HEIC"):
            pairs[0]

    @pytest.mark.parametrize("own", [{}, {"jpg_0": "left", "jpg_1": "right"}])
    def test_labels_in_json(self, tmp_path: Path, own: dict[str, str]) -> None:
        first, second = own.get("jpg_0", "jpg_0"), own.get("jpg_1", "jpg_1")
        files: dict[str, bytes] = {}
        for number in range(12):
            label = {"caption": f"prompt {number}", "label_0": number % 2, "label_1": 1 - number % 2}
            files[f"{number}.{first}.png"] = image_file(RED)
            files[f"{number}.{second}.png"] = image_file(BLUE)
            files[f"{number}.json"] = json.dumps(label).encode()
        pairs = self.pairs(tmp_path, files, columns=own)
        assert prompts(pairs) == [f"prompt {number}" for number in range(12)]
        torch.testing.assert_close(pairs[0].chosen, plain(BLUE, size=(8, 8)))
        torch.testing.assert_close(pairs[1].chosen, plain(RED, size=(8, 8)))

    @pytest.mark.parametrize("ending", ["txt", "cls"])
    def test_labels_in_files_of_their_own(self, tmp_path: Path, ending: str) -> None:
        files = {
            "0.jpg_0.png": image_file(RED),
            "0.jpg_1.png": image_file(BLUE),
            f"0.label_0.{ending}": b"0\n",
            f"0.label_1.{ending}": b"1\n",
            "0.caption.txt": b"a star",
        }
        pairs = self.pairs(tmp_path, files)
        assert prompts(pairs) == ["a star"]
        torch.testing.assert_close(pairs[0].chosen, plain(BLUE, size=(8, 8)))

    def test_images_as_numbers_and_base64_in_json(self, tmp_path: Path) -> None:
        values = {
            "prompt": "a star",
            "chosen": list(image_file(RED)),
            "rejected": base64.b64encode(image_file(BLUE)).decode(),
        }
        pairs = self.pairs(tmp_path, {"0.json": json.dumps(values).encode()})
        torch.testing.assert_close(pairs[0].chosen, plain(RED, size=(8, 8)))
        torch.testing.assert_close(pairs[0].rejected, plain(BLUE, size=(8, 8)))

    def test_hidden_files_and_folders(self, tmp_path: Path) -> None:
        hidden = {f"{folder}{key}": b"?" for folder in ("._", ".old/", "x/.cache/") for key in sample("0")}
        pairs = self.pairs(tmp_path, hidden | {f"./{key}": content for key, content in sample("x/0").items()})
        assert prompts(pairs) == ["a star"]

    def test_names_that_are_no_unicode(self, tmp_path: Path) -> None:
        name = os.fsdecode(b"caf\xe9")
        files = sample(name) | {f"{name}2.chosen.png": image_file(RED), f"{name}2.json": b"{"} | sample("ok")
        pairs = self.pairs(tmp_path, files)
        assert len(list(pairs.one_pass())) == 3
        with pytest.raises(DataError, match=r"sample caf\\udce92: caf\\udce92\.json cannot be read") as raised:
            pairs[1]
        assert str(raised.value).isprintable()
        torch.testing.assert_close(pairs[0].chosen, plain(RED, size=(8, 8)))

    def test_a_row_that_no_row_may_be_is_a_fault_of_it_alone(self, tmp_path: Path) -> None:
        for values in (
            b'{"prompt": "a \\ud83d"}',
            b'{"prompt": "a", "x": 1e999}',
            b'{"x":' + b"[" * 99999 + b"]" * 99999 + b"}",
        ):
            files = sample("0") | {f"1.{key}": content for key, content in {"json": values}.items()} | sample("2")
            pairs = self.pairs(tmp_path, files)
            assert len(list(pairs.one_pass())) == 3
            with pytest.raises(DataError, match=r"a\.tar sample 1: 1\.json cannot be read"):
                pairs[1]


class TestKeysWithDots:
    def test_are_taken_to_end_at_the_last_dots(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        files = sample("v1.5_0001", "one") | sample("v1.5_0002", "two") | sample("v2.0_0001", "three")
        pairs = read_pairs(write_tar(tmp_path / "a.tar", files), IN_ORDER)
        assert prompts(pairs) == ["one", "two", "three"]
        assert "of the sample 'v1.5_0001'" in caplog.text

    def test_with_json_and_plain_text(self, tmp_path: Path) -> None:
        for text in ({"json": b'{"caption": "a star"}'}, {"txt": b"a star"}):
            files = {
                f"a.b.{n}.{name}": content
                for n in range(3)
                for name, content in ({"chosen.png": image_file(RED), "rejected.png": image_file(BLUE)} | text).items()
            }
            assert prompts(read_pairs(write_tar(tmp_path / "a.tar", files), IN_ORDER)) == ["a star"] * 3

    def test_the_first_dot_counts_where_it_gives_samples(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        files = sample("0", "one") | sample("1", "two")
        assert prompts(read_pairs(write_tar(tmp_path / "a.tar", files), IN_ORDER)) == ["one", "two"]
        assert not caplog.records

    def test_where_neither_gives_whole_samples_a_name_is_shown(self, tmp_path: Path) -> None:
        files = {"v1.5_0.chosen.png": image_file(RED), "v1.5_1.chosen.png": image_file(RED)}
        with pytest.raises(DataError, match=r"'v1\.5_0\.chosen\.png' is '5_0\.chosen' of the sample 'v1'"):
            read_pairs(write_tar(tmp_path / "a.tar", files), IN_ORDER)

    def test_one_among_others_is_a_fault_of_its_own(self, tmp_path: Path) -> None:
        files = sample("0") | sample("v1.5_0001") | sample("2")
        pairs = read_pairs(write_tar(tmp_path / "a.tar", files), IN_ORDER)
        assert len(list(pairs.one_pass())) == 3
        with pytest.raises(DataError, match=r"sample v1: 'v1\.5_0001\.chosen\.png' is taken for 5_0001\.chosen"):
            pairs[1]


class TestRefusals:
    def broken(self, tmp_path: Path, **changes: bytes | None) -> str:
        """The error of a sample with files changed or left out, between two that are whole."""
        middle = {key.split(".", 1)[1]: content for key, content in sample("1").items()}
        middle |= {name.replace("__", "."): content for name, content in changes.items() if content is not None}
        for name in [name.replace("__", ".") for name, content in changes.items() if content is None]:
            del middle[name]
        files = sample("0") | {f"1.{name}": content for name, content in middle.items()} | sample("2")
        pairs = read_pairs(write_tar(tmp_path / "a.tar", files), IN_ORDER)
        assert len(list(pairs.one_pass())) == 3
        assert pairs[2].prompt == "a star"
        with pytest.raises(DataError) as raised:
            pairs[1]
        return str(raised.value)

    def test_a_broken_sample_breaks_itself_only(self, tmp_path: Path) -> None:
        for changes, why in [
            ({"chosen__png": None}, "a.tar sample 1: chosen is not an image that can be read"),
            ({"prompt__txt": None}, "a.tar sample 1: prompt is missing"),
            ({"prompt__txt": b"caf\xe9"}, "a.tar sample 1: 1.prompt.txt cannot be read ('utf-8'"),
            ({"rejected__webp": b"broken"}, "a.tar sample 1: rejected is not an image"),
            ({"json": b"{"}, "a.tar sample 1: 1.json cannot be read"),
            ({"json": b"[]"}, "a.tar sample 1: 1.json cannot be read"),
            ({"chosen__jpg": image_file(RED)}, "a.tar sample 1: there are two chosen images"),
        ]:
            assert why in self.broken(tmp_path, **changes)

    def test_an_archive_that_is_cut_off(self, tmp_path: Path) -> None:
        for keep in [100, 600, 1100, 2048, 2560, 3584]:
            path = write_tar(tmp_path / "a.tar", sample("0") | sample("1"))
            path.write_bytes(path.read_bytes()[:keep])
            with pytest.raises((DataError, StreamError), match=r"a\.tar"):
                list(read_pairs(path, IN_ORDER).one_pass())

    def test_a_damaged_header(self, tmp_path: Path) -> None:
        path = write_tar(tmp_path / "a.tar", sample("0") | sample("1"))
        content = bytearray(path.read_bytes())
        place = content.index(b"1.prompt.txt")
        content[place + 150] ^= 0xFF
        path.write_bytes(content)
        with pytest.raises((DataError, StreamError), match=r"a\.tar is damaged or cut off at byte \d+"):
            list(read_pairs(path, IN_ORDER).one_pass())

    def test_a_compressed_archive(self, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "a.tar", "w:gz") as archive:
            archive.addfile(tarfile.TarInfo("0.chosen.png"))
        with pytest.raises(DataError, match=r"a\.tar: files compressed with gzip are not read; unpack it with gunzip"):
            read_pairs(tmp_path / "a.tar", IN_ORDER)

    def test_an_archive_of_other_things(self, tmp_path: Path) -> None:
        path = write_tar(tmp_path / "a.tar", {"0.jpg": image_file(RED), "0.txt": b"a star"})
        with pytest.raises(DataError, match=r"a\.tar .*'0\.jpg' is 'jpg' of the sample '0'; .*KEY\.chosen\.jpg"):
            read_pairs(path, IN_ORDER)
