"""The tables of a study's database, the same in SQLite and PostgreSQL, and which study its rows belong to.

Votes and registrations are only added: triggers refuse updates and deletes, except of the votes of a rater who is
forgotten in that transaction. ``shows.last_key`` and ``counts`` follow from the votes and are written in the same
transaction, so that no page has to read all votes. Times are ISO 8601 in UTC with microseconds, so that they
sort as text.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import sqlalchemy as sa

from seedpo.study.errors import StoreError
from seedpo.study.folder import Study, refreshed
from seedpo.study.records import Group

VERSION = 2
"""Version of these tables; raise it whenever they change."""

metadata = sa.MetaData()

schema = sa.Table("seedpo_schema", metadata, sa.Column("version", sa.Integer, primary_key=True))

studies = sa.Table(
    "seedpo_studies",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    # Digest of the first group. Groups are only appended, so it distinguishes two studies of one id.
    sa.Column("origin", sa.Text, nullable=False),
    # Raised by each transaction that changes groups, shows, votes or counts. Writers lock this row.
    sa.Column("revision", sa.BigInteger, nullable=False),
    # The last revision after which everything has to be read again: rows are gone, or a rater counts differently.
    sa.Column("cleared", sa.BigInteger, nullable=False),
)

groups = sa.Table(
    "seedpo_groups",
    metadata,
    sa.Column("study", sa.Text, sa.ForeignKey("seedpo_studies.id"), primary_key=True),
    sa.Column("group", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Index("seedpo_groups_revision", "study", "revision"),
)

raters = sa.Table(
    "seedpo_raters",
    metadata,
    sa.Column("study", sa.Text, sa.ForeignKey("seedpo_studies.id"), primary_key=True),
    sa.Column("id", sa.Text, primary_key=True),
    # Number of raters before this one when it was made.
    sa.Column("turn", sa.Integer, nullable=False),
    sa.Column("token_hash", sa.Text, nullable=False, unique=True),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("created_at", sa.Text, nullable=False),
    sa.Column("expires_at", sa.Text),
    sa.Column("consented_at", sa.Text),
    sa.Column("revoked_at", sa.Text),
    sa.Column("excluded_at", sa.Text),
)

shows = sa.Table(
    "seedpo_shows",
    metadata,
    sa.Column("token", sa.Text, primary_key=True),
    sa.Column("study", sa.Text, nullable=False),
    sa.Column("rater", sa.Text, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("group", sa.Text, nullable=False),
    # Indices of candidates: "2,0" as they stood on the screen, "0,2" ascending.
    sa.Column("places", sa.Text, nullable=False),
    sa.Column("members", sa.Text, nullable=False),
    sa.Column("repeat_of", sa.Text),
    sa.Column("shown_at", sa.Text, nullable=False),
    # An open show holds its place for an hour from this time; null: its place was given up.
    sa.Column("held_at", sa.Text),
    # Key of the vote that counts; null: not answered yet.
    sa.Column("last_key", sa.Text),
    # Of the study when this row was changed last.
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.ForeignKeyConstraint(["study", "rater"], ["seedpo_raters.study", "seedpo_raters.id"]),
    sa.ForeignKeyConstraint(["study", "group"], ["seedpo_groups.study", "seedpo_groups.group"]),
    sa.UniqueConstraint("study", "rater", "number"),
    sa.Index("seedpo_shows_revision", "study", "revision"),
)

votes = sa.Table(
    "seedpo_votes",
    metadata,
    # SQLite numbers rows by itself only if the type is exactly INTEGER.
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("show", sa.Text, sa.ForeignKey("seedpo_shows.token"), nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("answer", sa.Text, nullable=False),
    # Indices of candidates, of an answer "ranked".
    sa.Column("best", sa.Integer),
    sa.Column("worst", sa.Integer),
    sa.Column("seconds", sa.Float),
    sa.Column("at", sa.Text, nullable=False),
    sa.UniqueConstraint("show", "key"),
    sqlite_autoincrement=True,
)

counts = sa.Table(
    "seedpo_counts",
    metadata,
    sa.Column("study", sa.Text, sa.ForeignKey("seedpo_studies.id"), primary_key=True),
    sa.Column("group", sa.Text, primary_key=True),
    sa.Column("members", sa.Text, primary_key=True),
    sa.Column("raters", sa.Integer, nullable=False),
    # How many of these raters saw the second candidate of a pair on the left.
    sa.Column("flipped", sa.Integer, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Index("seedpo_counts_revision", "study", "revision"),
)

# Raters who are forgotten; rows are here only inside the transaction that deletes everything of these raters.
erasures = sa.Table(
    "seedpo_erasures",
    metadata,
    sa.Column("study", sa.Text, primary_key=True),
    sa.Column("rater", sa.Text, primary_key=True),
)

# What the study was made to answer: see `registration`.
registrations = sa.Table(
    "seedpo_registrations",
    metadata,
    sa.Column("study", sa.Text, sa.ForeignKey("seedpo_studies.id"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    # Answers of the study at that time, checks and repetitions included.
    sa.Column("votes", sa.Integer, nullable=False),
    # JSON with the attributes of `Aim`.
    sa.Column("aim", sa.Text, nullable=False),
    sa.Column("at", sa.Text, nullable=False),
)

_FORGOTTEN = """EXISTS (
    SELECT 1 FROM seedpo_shows s JOIN seedpo_erasures e ON e.study = s.study AND e.rater = s.rater
    WHERE s.token = OLD.show
)"""

_APPEND_ONLY = {
    "sqlite": tuple(
        f"CREATE TRIGGER seedpo_{rows}_no_{what} BEFORE {what} ON seedpo_{rows} {unless} "
        f"BEGIN SELECT RAISE(ABORT, '{rows} are only added'); END"
        for rows, what, unless in (
            ("votes", "update", ""),
            ("votes", "delete", f"WHEN NOT {_FORGOTTEN}"),
            ("registrations", "update", ""),
            ("registrations", "delete", ""),
        )
    ),
    "postgresql": (
        f"""
        CREATE FUNCTION seedpo_votes_append_only() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN
            IF TG_OP = 'DELETE' THEN IF {_FORGOTTEN} THEN RETURN OLD; END IF; END IF;
            RAISE EXCEPTION 'votes are only added';
        END $$
        """,
        """
        CREATE TRIGGER seedpo_votes_no_change BEFORE UPDATE OR TRUNCATE ON seedpo_votes
        FOR EACH STATEMENT EXECUTE FUNCTION seedpo_votes_append_only()
        """,
        """
        CREATE TRIGGER seedpo_votes_no_delete BEFORE DELETE ON seedpo_votes
        FOR EACH ROW EXECUTE FUNCTION seedpo_votes_append_only()
        """,
        """
        CREATE FUNCTION seedpo_registrations_grow_only() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'registrations are only added'; END $$
        """,
        """
        CREATE TRIGGER seedpo_registrations_grow_only BEFORE UPDATE OR DELETE OR TRUNCATE ON seedpo_registrations
        FOR EACH STATEMENT EXECUTE FUNCTION seedpo_registrations_grow_only()
        """,
    ),
}

_LOCK = 0x5EED90
"""PostgreSQL's advisory lock for making the tables."""


def prepare_tables(connection: sa.Connection) -> None:
    """Makes the tables if they do not exist; call it inside a transaction that writes.

    Raises:
        StoreError: the tables have another version.
    """
    dialect = connection.dialect.name
    if dialect == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:number)"), {"number": _LOCK})
    if not have_tables(connection):
        metadata.create_all(connection)
        for statement in _APPEND_ONLY[dialect]:
            connection.execute(sa.text(statement))
        connection.execute(sa.insert(schema).values(version=VERSION))


def have_tables(connection: sa.Connection) -> bool:
    """Whether a database has the tables.

    Raises:
        StoreError: they have another version.
    """
    if not sa.inspect(connection).has_table(schema.name):
        return False
    version = connection.execute(sa.select(schema.c.version)).scalar()
    if version != VERSION:
        newer = isinstance(version, int) and version > VERSION
        raise StoreError(
            f"the tables of the database have version {version}, and this seedpo knows {VERSION}; "
            + ("upgrade seedpo" if newer else "use the seedpo that made them")
        )
    return True


@contextmanager
def no_tables() -> Iterator[sa.Connection]:
    """A connection to a database of its own that has the tables and no row."""
    engine = sa.create_engine("sqlite://")
    with engine.connect() as connection:
        metadata.create_all(connection)
        yield connection
    engine.dispose()


def text_of(indices: Iterable[int]) -> str:
    """Indices of candidates as they are stored."""
    return ",".join(map(str, indices))


def indices_of(text: str) -> tuple[int, ...]:
    """The inverse of :func:`text_of`.

    Raises:
        StoreError: the text is none of its.
    """
    if not re.fullmatch(r"[0-9]{1,9}(,[0-9]{1,9})*", text):
        raise StoreError(
            f"the database holds {text[:50]!r} where numbers of candidates should be; put a backup in its place"
        )
    return tuple(map(int, text.split(",")))


def is_storable(text: str) -> bool:
    """Whether every database can store a text: PostgreSQL has no NUL, and none has half a surrogate pair."""
    return "\0" not in text and text == text.encode(errors="ignore").decode()


def as_text(time: datetime) -> str:
    """A time as it is stored."""
    return time.astimezone(UTC).isoformat(timespec="microseconds")


def digest(group: Group) -> str:
    """SHA-256 of everything that answers to a group depend on. Its category may change at any time."""
    candidates = [[candidate.source, list(candidate.images)] for candidate in group.candidates]
    content = [group.id, group.question, group.prompt, candidates, group.expected]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def register(connection: sa.Connection, study: Study) -> Study:
    """Gives a study its row; call it in the transaction that calls :func:`prepare_tables`.

    Returns:
        The study with the groups that were appended and shown since it was read.

    Raises:
        StoreError: the database holds another study of this id, or a group changed after it was shown.
    """
    name = study.settings.id
    if connection.execute(sa.select(studies.c.id).where(studies.c.id == name)).first() is None:
        connection.execute(sa.insert(studies).values(id=name, origin=_origin(study), revision=0, cleared=0))
    lock_study(connection, study)
    # Only now: while the row is locked, nobody is shown a group that is not read here.
    return _refreshed(connection, study)


def recognized(connection: sa.Connection, study: Study) -> Study:
    """The same as :func:`register` for a connection that only reads: a study without a row has no votes yet."""
    row = connection.execute(sa.select(studies).where(studies.c.id == study.settings.id)).first()
    if row is not None:
        _require_origin(connection, study, row.origin)
    return _refreshed(connection, study)


def _refreshed(connection: sa.Connection, study: Study) -> Study:
    study = refreshed(study)
    for row in connection.execute(sa.select(groups).where(groups.c.study == study.settings.id)):
        if row.group not in study.by_id:
            raise StoreError(
                f"{study.folder}: group {row.group!r} was shown to raters and is not in groups.jsonl; put it back, or "
                "give this study another id in study.yaml if it is another study"
            )
        require_unchanged(study, study.by_id[row.group], row.digest)
    return study


def lock_study(connection: sa.Connection, study: Study) -> tuple[int, int]:
    """Locks the study's row until the transaction ends.

    Returns:
        Its revision, and the last one after which everything has to be read again.

    Raises:
        StoreError: the row belongs to another study, or is gone.
    """
    own_row = studies.c.id == study.settings.id
    row = connection.execute(sa.select(studies).where(own_row).with_for_update()).first()
    if row is None:
        raise StoreError(f"{study.folder}: the database no longer knows this study; start again to register it")
    if not _require_origin(connection, study, row.origin):
        connection.execute(sa.update(studies).where(own_row).values(origin=_origin(study)))
    return int(row.revision), int(row.cleared)


def _require_origin(connection: sa.Connection, study: Study, recorded: str) -> bool:
    """Whether the recorded origin is that of a study; it may be another one as long as nothing was shown."""
    if _origin(study) in ("", recorded):
        return True
    shown = sa.select(shows.c.token).where(shows.c.study == study.settings.id).limit(1)
    if recorded and connection.execute(shown).first() is not None:
        raise StoreError(
            f"{study.folder}: its first group {study.groups[0].id!r} is not the first group of the study of this "
            "id whose votes are in the database: groups.jsonl was edited, or it is another study; undo the edit, "
            "or give one study another id in study.yaml"
        )
    return False


def _origin(study: Study) -> str:
    return digest(study.groups[0]) if study.groups else ""


def require_unchanged(study: Study, group: Group, recorded: str) -> None:
    """Checks that a group is the one that was recorded when it was shown for the first time.

    Raises:
        StoreError: it looked different then.
    """
    if digest(group) != recorded:
        raise StoreError(
            f"{study.folder}: group {group.id!r} was changed after it had been shown to raters; undo the change and "
            "append a new group instead"
        )
