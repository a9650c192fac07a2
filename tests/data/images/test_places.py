from __future__ import annotations

import base64
import os
import unicodedata
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from seedpo.data.images.places import embedded_file, located, plain_name
from seedpo.data.images.reading import read_file, read_image
from seedpo.errors import DataError
from tests.data.pictures import BLUE, RED, image_file, noise_file

ENCODED = base64.b64encode(image_file(RED)).decode()
COMPOSED, APART = "caf\u00e9", "cafe\u0301"


def fault(content: Any, folder: Path | None) -> str:
    with pytest.raises(DataError) as raised:
        read_image(content, folder=folder)
    message = str(raised.value)
    assert len(message) < 1000
    assert message.isprintable()
    return message


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "set" / "im").mkdir(parents=True)
    (tmp_path / "set" / "im" / "a b.png").write_bytes(image_file(RED))
    (tmp_path / "secret.png").write_bytes(image_file(BLUE))
    return tmp_path / "set"


class TestWindows:
    @pytest.mark.parametrize(
        "name", ["im\\a b.png", ".\\im\\a b.png", "im/.\\a b.png", "./im/a b.png", "im\\..\\im\\a b.png"]
    )
    def test_separators(self, folder: Path, name: str) -> None:
        assert read_file(name, folder=folder) == image_file(RED)

    def test_a_file_of_that_very_name_goes_first(self, folder: Path) -> None:
        for name in ("im\\a b.png", "C:\\a.png"):
            (folder / name).write_bytes(image_file(BLUE))
            assert read_file(name, folder=folder) == image_file(BLUE)

    @pytest.mark.parametrize(
        "name",
        [
            "C:\\data\\0.png",
            "c:/data/0.png",
            "\\\\server\\share\\0.png",
            "file:///C:/data/0.png",
            "file:///D%3A%5C0.png",
        ],
    )
    def test_drives_and_shares_are_named(self, folder: Path, name: str) -> None:
        if os.name != "nt":
            assert "drive of Windows" in fault(name, folder)
            assert "pairs.image_folder" in fault(name, folder)

    @pytest.mark.parametrize("name", ["..\\secret.png", "im\\..\\..\\secret.png", "..\\set\\..\\secret.png"])
    def test_they_do_not_lead_out_of_the_folder(self, folder: Path, name: str) -> None:
        assert "lies outside the folder" in fault(name, folder)


class TestLabelStudio:
    @pytest.mark.parametrize(
        "name", ["/data/local-files/?d=im/a b.png", "/data/local-files/?d=/im/a%20b.png", "/data/upload/2/x.png"]
    )
    def test_paths_of_its_server(self, folder: Path, name: str) -> None:
        (folder / "upload" / "2").mkdir(parents=True)
        (folder / "upload" / "2" / "x.png").write_bytes(image_file(RED))
        assert read_file(name, folder=folder) == image_file(RED)

    @pytest.mark.parametrize("name", ["?d=../secret.png", "?d=im/..%2F..%2Fsecret.png", "?d=%00", "?d=none.png"])
    def test_they_do_not_lead_out_of_the_folder(self, folder: Path, name: str) -> None:
        fault(f"/data/local-files/{name}", folder)


class TestFileAddresses:
    def test_those_of_this_machine(self, folder: Path) -> None:
        path = quote(str(folder / "im" / "a b.png"))
        for address in (f"file://{path}", f"file://localhost{path}", f"FILE://LocalHost{path}", f"file:{path}"):
            assert read_file(address, folder=folder) == image_file(RED)

    def test_bytes_that_are_no_unicode(self, folder: Path) -> None:
        name = os.fsdecode(b"caf\xe9.png")
        (folder / name).write_bytes(image_file(RED))
        assert read_file(f"file://{folder}/caf%E9.png", folder=folder) == image_file(RED)
        assert read_file(Path(name), folder=folder) == image_file(RED), "as a search has it"

    def test_a_number_sign_belongs_to_the_name(self, folder: Path) -> None:
        (folder / "a#1?.png").write_bytes(image_file(RED))
        assert read_file(f"file://{folder}/a#1?.png", folder=folder) == image_file(RED)

    def test_those_that_lead_elsewhere(self, folder: Path) -> None:
        assert "lies outside" in fault(f"file://{folder.parent}/secret.png", folder)
        assert "lies outside" in fault(f"file://{folder}/%2E%2E/secret.png", folder)
        assert "machine" in fault("file://server/a.png", folder)
        assert "NUL" in fault("file:///a%00.png", folder)
        assert "No such file" in fault(f"file://{folder}/absent.png", folder)

    @pytest.mark.parametrize("scheme", ["http", "https", "s3", "gs", "ftp", "hf", "HTTPS"])
    def test_other_addresses_are_to_be_downloaded(self, folder: Path, scheme: str) -> None:
        assert "is an address: download the file first" in fault(f"{scheme}://example.org/a.png", folder)


class TestUnicodeForms:
    @pytest.mark.parametrize(("stored", "named"), [(APART, COMPOSED), (COMPOSED, APART)])
    def test_the_other_form_is_found(self, folder: Path, stored: str, named: str) -> None:
        (folder / stored).mkdir()
        (folder / stored / f"{stored}.png").write_bytes(image_file(BLUE))
        for name in (
            f"{named}/{named}.png",
            f"{named}\\{named}.png",
            f"file://{quote(str(folder))}/{quote(named)}/{quote(named)}.png",
        ):
            assert read_file(name, folder=folder) == image_file(BLUE)

    def test_addresses_where_the_folder_is_a_relative_path(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / f"{APART}.png").write_bytes(image_file(BLUE))
        monkeypatch.chdir(folder.parent)
        for name in (f"file://{quote(str(folder))}/{quote(COMPOSED)}.png", f"{folder}/{COMPOSED}.png"):
            assert read_file(name, folder=Path(folder.name)) == image_file(BLUE)

    def test_the_very_name_goes_first(self, folder: Path) -> None:
        (folder / f"{APART}.png").write_bytes(image_file(BLUE))
        (folder / f"{COMPOSED}.png").write_bytes(image_file(RED))
        if len(list(folder.glob("caf*"))) == 2:
            assert read_file(f"{APART}.png", folder=folder) == image_file(BLUE)
            assert read_file(f"{COMPOSED}.png", folder=folder) == image_file(RED)

    def test_two_that_look_the_same_are_not_chosen_between(self, folder: Path) -> None:
        both = ["e\u0323\u0302.png", "e\u0302\u0323.png"]
        for name in both:
            (folder / name).write_bytes(image_file(BLUE))
        assert "2 files whose names look the same" in fault(unicodedata.normalize("NFC", both[0]), folder)

    def test_a_file_that_comes_later_is_seen(self, folder: Path) -> None:
        assert "No such file" in fault(f"{COMPOSED}.png", folder)
        (folder / f"{APART}.png").write_bytes(image_file(BLUE))
        os.utime(folder, ns=(1, 1))
        assert read_file(f"{COMPOSED}.png", folder=folder) == image_file(BLUE)

    def test_names_are_compared_in_one_form(self) -> None:
        names = [
            f"im/{APART}.png",
            f"im/{COMPOSED}.png",
            f"im\\{APART}.png",
            f"./im/{APART}.png",
            f".\\im\\{COMPOSED}.png",
        ]
        assert {plain_name(name) for name in names} == {f"im/{COMPOSED}.png"}
        assert plain_name("file:///im/a%20b.png") == "/im/a b.png"


class TestWhatNoPathHolds:
    @pytest.mark.parametrize(
        ("name", "why"), [("a\0.png", "NUL"), ("im/\ud83d.png", "surrogate"), ("\udce9.png", "UTF-8")]
    )
    def test_is_named(self, folder: Path, name: str, why: str) -> None:
        assert why in fault(name, folder)

    def test_long_text(self, folder: Path) -> None:
        for text in ("x." * 3_000_000, "a/" * 3_000 + "a.png", "." * 300, "é" * 4000, "\\" * 5000):
            fault(text, folder)

    def test_without_a_folder(self) -> None:
        assert "there is no folder for it" in fault("im\\a.png", None)


class TestEmbedded:
    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
    def test_base64(self, kind: str) -> None:
        content = noise_file(kind, size=(40, 30))
        plain = base64.b64encode(content).decode()
        lines = "\r\n".join(plain[start : start + 76] for start in range(0, len(plain), 76))
        url = base64.urlsafe_b64encode(content).decode()
        for text in (
            plain,
            plain.rstrip("="),
            plain + "==",
            lines,
            f"  {plain}\n",
            url,
            base64.encodebytes(content).decode(),
        ):
            assert read_file(text) == content

    def test_short_ones(self) -> None:
        smallest = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
        assert read_image(base64.b64encode(smallest).decode()).size == (1, 1)

    def test_data_addresses(self) -> None:
        for head in (
            "data:image/png;base64,",
            "DATA:image/png;charset=utf-8;BASE64,",
            "data:;base64,",
            "data:image/png;name=a.png;base64,",
        ):
            assert read_file(head + ENCODED) == image_file(RED)
            assert read_file(head + quote(ENCODED, safe="")) == image_file(RED)
            assert read_file(head + ENCODED.rstrip("=")) == image_file(RED)
        assert read_file("data:image/png," + quote(image_file(RED))) == image_file(RED)

    def test_hugging_face_values(self) -> None:
        assert read_file({"bytes": ENCODED, "path": "a.png"}) == image_file(RED)
        assert read_file({"bytes": None, "path": f"data:image/png;base64,{ENCODED}"}) == image_file(RED)

    def test_a_list_of_bytes(self, folder: Path) -> None:
        assert read_file(list(image_file(RED))) == image_file(RED)
        for content, why in [
            ([1, 300], "0 to 255"),
            ([-1], "0 to 255"),
            ([], "list"),
            ([1.0], "list"),
            ([True], "list"),
            (["a"], "list"),
        ]:
            assert why in fault(content, folder)

    def test_what_holds_no_image(self, folder: Path) -> None:
        archive = base64.b64encode(b"PK\x03\x04" + os.urandom(3000)).decode()
        page = base64.b64encode(b"<svg xmlns='http://www.w3.org/2000/svg'>" + b" " * 100).decode()
        for text, why in [
            (archive, "an archive"),
            (f"data:image/png;base64,{archive}", "an archive"),
            (f"data:image/svg+xml;base64,{page}", "SVG"),
            ("data:image/svg+xml,%3Csvg%20xmlns%3D%22a%22%2F%3E", "SVG"),
            ("data:image/svg+xml;utf8,<svg/>", "SVG"),
            ("data:image/png;base64,", "an empty file"),
            ("data:image/png;base64,!!!!", "no whole base64"),
            ("data:image/png;base64,AAAAA", "no whole base64"),
            ("data:image/png", "No such file"),
            (ENCODED[: len(ENCODED) // 2], "a damaged PNG file"),
            (("A" * 1001), "no whole base64"),
        ]:
            assert why in fault(text, folder)

    def test_paths_are_not_taken_for_base64(self, folder: Path) -> None:
        for name in ("a" * 100, "images/train/of/the/first/set/of/pictures/cat0001", "9j/4AAQSkZJRg", "iVBORw0KGgo"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(image_file(RED))
            assert embedded_file(name) is None
            assert located(name, folder) == folder / name
            assert read_file(name, folder=folder) == image_file(RED)
