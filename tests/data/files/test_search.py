from __future__ import annotations

import os
from pathlib import Path

import pytest

from seedpo.data.files.search import (
    BROKEN_LINKS,
    HIDDEN_FILES,
    HIDDEN_FOLDERS,
    LOOPS,
    SPECIAL_FILES,
    SYSTEM_FILES,
    UNREADABLE,
    PassedOver,
    search,
)
from seedpo.errors import DataError


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def found(root: Path, ending: str = ".x", *, deep: bool = True) -> tuple[list[str], dict[str, int]]:
    """Names below the root, and how many were passed over of each kind."""

    def wanted(path: Path) -> bool | str:
        return path.suffix == ending or (path.suffix != ".image" and f"files {path.suffix}")

    result = search(root, wanted, deep=deep)
    counts: dict[str, int] = {}
    for entry in result.passed:
        counts[entry.reason] = counts.get(entry.reason, 0) + entry.count
    return [path.relative_to(root).as_posix() for path in result.files], counts


class TestFiles:
    def test_are_sorted_by_their_folders(self, tmp_path: Path) -> None:
        write(tmp_path, "b.x", "a/2.x", "a/10.x", "a-b/1.x", "a.x")
        assert found(tmp_path)[0] == ["a/10.x", "a/2.x", "a-b/1.x", "a.x", "b.x"]

    def test_that_are_not_wanted_are_counted_or_not(self, tmp_path: Path) -> None:
        write(tmp_path, "a.x", "b.y", "c/d.y", "e.z", "f.image")
        assert found(tmp_path) == (["a.x"], {"files .y": 2, "files .z": 1})

    def test_of_one_folder_alone(self, tmp_path: Path) -> None:
        write(tmp_path, "a.x", "b/c.x", ".d.x")
        assert found(tmp_path, deep=False) == (["a.x"], {HIDDEN_FILES: 1})

    def test_are_counted_by_folder_with_an_example(self, tmp_path: Path) -> None:
        write(tmp_path, "in/.b", "in/.a", "in/.c", ".d")
        assert search(tmp_path, lambda path: True).passed == (
            PassedOver(path=tmp_path, reason=HIDDEN_FILES, count=1, example=".d"),
            PassedOver(path=tmp_path / "in", reason=HIDDEN_FILES, count=3, example=".a"),
        )


class TestWhatIsPassedOver:
    def test_hidden_files_and_folders(self, tmp_path: Path) -> None:
        write(
            tmp_path, "a.x", "._a.x", ".DS_Store", ".ipynb_checkpoints/a-checkpoint.x", "b/.cache/1.x", "b/.cache/2.x"
        )
        assert found(tmp_path) == (["a.x"], {HIDDEN_FILES: 2, HIDDEN_FOLDERS: 2})

    def test_a_hidden_folder_that_the_user_names_is_searched(self, tmp_path: Path) -> None:
        write(tmp_path, ".mine/a.x", ".mine/.git/b.x")
        assert found(tmp_path / ".mine") == (["a.x"], {HIDDEN_FOLDERS: 1})
        assert found(tmp_path / ".mine" / ".git") == (["b.x"], {})

    def test_what_systems_leave_behind(self, tmp_path: Path) -> None:
        write(tmp_path, "a.x", "Thumbs.db", "b/desktop.ini", "__MACOSX/a.x", "b/@eaDir/b.x")
        assert found(tmp_path) == (["a.x"], {SYSTEM_FILES: 4})

    def test_links_that_lead_nowhere(self, tmp_path: Path) -> None:
        write(tmp_path, "a.x")
        (tmp_path / "b.x").symlink_to(tmp_path / "absent")
        (tmp_path / "c.x").symlink_to(tmp_path / "c.x")
        assert found(tmp_path) == (["a.x"], {BROKEN_LINKS: 2})

    def test_what_is_no_file(self, tmp_path: Path) -> None:
        """A pipe would be waited for without end."""
        write(tmp_path, "a.x")
        os.mkfifo(tmp_path / "b.x")
        assert found(tmp_path) == (["a.x"], {SPECIAL_FILES: 1})

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_folders_that_may_not_be_read(self, tmp_path: Path) -> None:
        write(tmp_path, "a.x", "b/c.x")
        (tmp_path / "b").chmod(0)
        try:
            assert found(tmp_path) == (["a.x"], {UNREADABLE: 1})
            with pytest.raises(DataError, match="b cannot be read: Permission denied"):
                search(tmp_path / "b", lambda path: True)
        finally:
            (tmp_path / "b").chmod(0o700)

    def test_a_root_that_is_no_folder(self, tmp_path: Path) -> None:
        write(tmp_path, "a.x")
        for name in ("a.x", "absent"):
            with pytest.raises(DataError, match=f"{name} cannot be read"):
                search(tmp_path / name, lambda path: True)


class TestLinks:
    def test_of_files_and_folders_are_followed(self, tmp_path: Path) -> None:
        write(tmp_path, "elsewhere/1.x", "elsewhere/sub/2.x", "root/a.x")
        (tmp_path / "root" / "linked").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "root" / "b.x").symlink_to(tmp_path / "elsewhere" / "1.x")
        assert found(tmp_path / "root") == (["a.x", "b.x", "linked/1.x", "linked/sub/2.x"], {})

    def test_of_two_names_to_one_folder(self, tmp_path: Path) -> None:
        """Images of one folder may be the partners of those of several."""
        write(tmp_path, "elsewhere/1.x")
        for name in ("one", "two"):
            (tmp_path / "root" / name).parent.mkdir(exist_ok=True)
            (tmp_path / "root" / name).symlink_to(tmp_path / "elsewhere")
        assert found(tmp_path / "root") == (["one/1.x", "two/1.x"], {})

    def test_back_to_a_folder_above(self, tmp_path: Path) -> None:
        write(tmp_path, "root/a/1.x", "other/2.x")
        (tmp_path / "root" / "self").symlink_to(tmp_path / "root")
        (tmp_path / "root" / "a" / "up").symlink_to("..")
        (tmp_path / "root" / "a" / "over").symlink_to("../..")  # above the root: it holds the root again
        assert found(tmp_path / "root") == (["a/1.x"], {LOOPS: 3})

    def test_of_two_folders_to_one_another(self, tmp_path: Path) -> None:
        write(tmp_path, "root/a/1.x", "root/b/2.x")
        (tmp_path / "root" / "a" / "b").symlink_to(tmp_path / "root" / "b")
        (tmp_path / "root" / "b" / "a").symlink_to(tmp_path / "root" / "a")
        assert found(tmp_path / "root") == (["a/1.x", "a/b/2.x", "b/2.x", "b/a/1.x"], {LOOPS: 2})

    def test_a_root_that_is_a_link(self, tmp_path: Path) -> None:
        write(tmp_path, "elsewhere/1.x")
        (tmp_path / "root").symlink_to(tmp_path / "elsewhere")
        assert found(tmp_path / "root") == (["1.x"], {})


def test_many_levels(tmp_path: Path) -> None:
    write(tmp_path, "/".join(["d"] * 300) + "/a.x")
    assert len(found(tmp_path)[0]) == 1
