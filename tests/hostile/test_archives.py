"""Archives and tables whose heads claim more than there is, and lists that name files elsewhere."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seedpo.data.image_list import find_images
from seedpo.data.prompts.reading import read_prompts
from seedpo.data.reading import read_pairs
from seedpo.data.settings import PairsConfig
from seedpo.data.tables import parquet
from seedpo.errors import DataError, StreamError
from seedpo.files import LARGEST
from seedpo.study.folder import create_study, open_study
from seedpo.study.image_folders import read_images
from seedpo.study.records import Candidate, Group
from seedpo.study.settings import Question, StudySettings
from tests.data.pictures import BLUE, RED, image_file

PAIR = {"1.chosen.png": image_file(RED), "1.rejected.png": image_file(BLUE), "1.prompt.txt": b"a"}


def archive(*, before: bytes = b"", link: str | None = None) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in PAIR.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        if link is not None:
            member = tarfile.TarInfo("2.chosen.png")
            member.type, member.linkname = tarfile.SYMTYPE, link
            tar.addfile(member)
    return before + file.getvalue()


def header(kind: bytes, size: int) -> bytes:
    member = tarfile.TarInfo("1.chosen.png")
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT)


LONG_NAME = header(tarfile.GNUTYPE_LONGNAME, 5) + b"name\0".ljust(512, b"\0")


@pytest.mark.parametrize(
    "content",
    [
        archive(before=LONG_NAME * 5000),
        header(tarfile.XHDTYPE, 1 << 40) + bytes(10240),
        header(tarfile.REGTYPE, LARGEST + 1) + bytes(10240),
        header(tarfile.REGTYPE, 1 << 50) + bytes(10240),
    ],
    ids=["names of names", "vast head", "vast file", "vaster file"],
)
def test_an_archive_that_claims_too_much_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises((DataError, StreamError)):
        list(read_pairs(tmp_path / "a.tar", PairsConfig(resolution=8)).fates())


def test_links_of_an_archive_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(archive(link="/etc/hostname"))
    (fate,) = read_pairs(tmp_path / "a.tar", PairsConfig(resolution=8)).fates()
    assert len(fate.pairs) == 1


def test_a_table_that_claims_too_many_rows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROWS", 1000)
    pq.write_table(pa.table({"prompt": pa.nulls(1001, pa.string())}), tmp_path / "a.parquet")
    for read in (read_prompts, read_pairs):
        with pytest.raises(DataError, match=r"1,001 rows"):
            read(tmp_path / "a.parquet")


@pytest.mark.parametrize("read", [read_images, lambda folder: find_images([str(folder)])])
def test_a_list_of_images_names_none_outside_its_folder(tmp_path: Path, read: Callable[[Path], object]) -> None:
    (tmp_path / "private.png").write_bytes(image_file(RED))
    folder = tmp_path / "sent"
    folder.mkdir()
    for name in ("../private.png", str(tmp_path / "private.png"), (tmp_path / "private.png").as_uri()):
        (folder / "index.json").write_text(f'[{{"file": "{name}", "prompt": "a"}}]', encoding="utf-8")
        with pytest.raises(DataError):
            read(folder)


def test_an_image_of_a_study_is_no_link(tmp_path: Path) -> None:
    candidates = tuple(Candidate(source=name, images=(name,)) for name in ("r", "b"))
    group = Group(id="g", question="preference", prompt="a", candidates=candidates)
    settings = StudySettings(id="s", questions=(Question(key="preference", text="Which?"),))
    images = {"r": image_file(RED), "b": image_file(BLUE)}
    study = create_study(tmp_path / "study", settings, [group], images)
    image = study.image(next(iter(study.images)))
    image.rename(tmp_path / "private.png")
    image.symlink_to(tmp_path / "private.png")
    with pytest.raises(DataError, match="link"):
        open_study(tmp_path / "study")
