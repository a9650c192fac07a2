"""The sessions of a study's owner."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from seedpo.errors import DataError
from seedpo.study.web.security import Secret
from seedpo.study.web.sessions import FOLDER, Sessions

TOKEN = "token-of-the-admin-page-1"


def sessions(folder: Path, now: list[float], *, key: bytes = b"k" * 32, token: str = TOKEN) -> Sessions:
    return Sessions(folder=folder, secret=Secret(key), admin_token=token, clock=lambda: now[0])


def test_a_session_holds_everywhere_until_it_ends_or_is_old(tmp_path: Path) -> None:
    now = [1e9]
    here, elsewhere = sessions(tmp_path, now), sessions(tmp_path, now)
    session, other = here.begin(), here.begin()
    assert session != other
    assert elsewhere.holds(session)
    elsewhere.end(session)
    assert not here.holds(session)
    assert here.holds(other)
    elsewhere.end(session)
    now[0] += 12 * 3600 - 1
    assert here.holds(other)
    now[0] += 1
    assert not here.holds(other)


def test_what_is_stored_opens_nothing_and_does_not_grow(tmp_path: Path) -> None:
    now = [1e9]
    here = sessions(tmp_path, now)
    session = here.begin()
    (file,) = (tmp_path / FOLDER).iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert file.read_bytes() == b""
    assert session not in file.name
    assert not here.holds(file.name)
    now[0] += 13 * 3600
    here.begin()
    assert len(list((tmp_path / FOLDER).iterdir())) == 1


def test_a_session_is_for_one_key_and_one_admin_token(tmp_path: Path) -> None:
    now = [1e9]
    session = sessions(tmp_path, now).begin()
    assert not sessions(tmp_path, now, key=b"l" * 32).holds(session)
    assert not sessions(tmp_path, now, token="another").holds(session)
    for forged in ("", ".", "..", "../" + FOLDER, session[:-1], session + "=", "x" * 5000, "é", "\0"):
        assert not sessions(tmp_path, now).holds(forged), forged


def test_a_folder_that_cannot_hold_sessions_is_named(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("")
    with pytest.raises(DataError, match=FOLDER):
        sessions(tmp_path, [1e9]).begin()
