"""The tables of a study's database, the same in SQLite and PostgreSQL.

Votes are only ever added: triggers refuse to change or to delete one. ``shows.last_vote`` and ``counts`` follow from
them and are written in the same transaction, so that a page is answered without reading all votes. Times are ISO 8601
in UTC with microseconds, so that their order as text is their order in time.
"""

from __future__ import annotations

from seedpo.study.store_errors import StoreError

try:
    from sqlalchemy import (
        BigInteger,
        Boolean,
        Column,
        Connection,
        Float,
        ForeignKey,
        ForeignKeyConstraint,
        Index,
        Integer,
        MetaData,
        Table,
        Text,
        UniqueConstraint,
        insert,
        inspect,
        select,
        text,
    )
except ModuleNotFoundError as error:
    raise StoreError("studies need SQLAlchemy: pip install 'seedpo[study]'") from error

VERSION = 1
"""Of these tables; raised whenever they change."""

metadata = MetaData()

schema = Table("seedpo_schema", metadata, Column("version", Integer, primary_key=True))

studies = Table(
    "seedpo_studies",
    metadata,
    Column("id", Text, primary_key=True),
    # Digest of the first group: groups are only appended, so that it tells two studies of one id apart.
    Column("origin", Text, nullable=False),
    # Raised by each change of `counts`; its row is what writers lock.
    Column("revision", BigInteger, nullable=False),
)

groups = Table(
    "seedpo_groups",
    metadata,
    Column("study", Text, ForeignKey("seedpo_studies.id"), primary_key=True),
    Column("group", Text, primary_key=True),
    Column("digest", Text, nullable=False),
)

raters = Table(
    "seedpo_raters",
    metadata,
    Column("study", Text, ForeignKey("seedpo_studies.id"), primary_key=True),
    Column("id", Text, primary_key=True),
    Column("token_hash", Text, nullable=False, unique=True),
    Column("label", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("expires_at", Text),
    Column("consented_at", Text),
    Column("revoked_at", Text),
    Column("excluded_at", Text),
)

shows = Table(
    "seedpo_shows",
    metadata,
    Column("token", Text, primary_key=True),
    Column("study", Text, nullable=False),
    Column("rater", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("group", Text, nullable=False),
    Column("first", Integer, nullable=False),
    Column("second", Integer, nullable=False),
    Column("flipped", Boolean, nullable=False),
    Column("repeat_of", Text),
    Column("shown_at", Text, nullable=False),
    # Until an hour after this an unanswered show holds its place; null: it was given up.
    Column("held_at", Text),
    # The vote that counts; null: none yet.
    Column("last_vote", BigInteger),
    ForeignKeyConstraint(["study", "rater"], ["seedpo_raters.study", "seedpo_raters.id"]),
    ForeignKeyConstraint(["study", "group"], ["seedpo_groups.study", "seedpo_groups.group"]),
    UniqueConstraint("study", "rater", "number"),
    Index("seedpo_shows_pair", "study", "group", "first", "second"),
    Index("seedpo_shows_held", "study", "last_vote", "held_at"),
)

votes = Table(
    "seedpo_votes",
    metadata,
    # SQLite numbers rows by itself only where the type is exactly INTEGER.
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("show", Text, ForeignKey("seedpo_shows.token"), nullable=False),
    Column("key", Text, nullable=False),
    Column("answer", Text, nullable=False),
    Column("seconds", Float),
    Column("at", Text, nullable=False),
    UniqueConstraint("show", "key"),
    sqlite_autoincrement=True,
)

counts = Table(
    "seedpo_counts",
    metadata,
    Column("study", Text, ForeignKey("seedpo_studies.id"), primary_key=True),
    Column("group", Text, primary_key=True),
    Column("first", Integer, primary_key=True),
    Column("second", Integer, primary_key=True),
    Column("raters", Integer, nullable=False),
    # Of these raters, to how many the second candidate was shown on the left.
    Column("flipped", Integer, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Index("seedpo_counts_revision", "study", "revision"),
)

_APPEND_ONLY = {
    "sqlite": tuple(
        f"CREATE TRIGGER seedpo_votes_no_{what} BEFORE {what} ON seedpo_votes "
        "BEGIN SELECT RAISE(ABORT, 'votes are only ever added'); END"
        for what in ("update", "delete")
    ),
    "postgresql": (
        """
        CREATE FUNCTION seedpo_votes_append_only() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'votes are only ever added'; END $$
        """,
        """
        CREATE TRIGGER seedpo_votes_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON seedpo_votes
        FOR EACH STATEMENT EXECUTE FUNCTION seedpo_votes_append_only()
        """,
    ),
}

_LOCK = 0x5EED90
"""Number of the lock under which PostgreSQL lets one process at a time make the tables."""


def prepare_tables(connection: Connection) -> None:
    """Makes the tables where there are none; inside a transaction that writes.

    Raises:
        StoreError: if the tables are of another version.
    """
    dialect = connection.dialect.name
    if dialect == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _LOCK})
    if inspect(connection).has_table(schema.name):
        version = connection.execute(select(schema.c.version)).scalar()
        if version != VERSION:
            newer = isinstance(version, int) and version > VERSION
            raise StoreError(
                f"the tables of the database have version {version}, and this seedpo knows {VERSION}; "
                + ("upgrade seedpo" if newer else "use the seedpo that made them")
            )
        return
    metadata.create_all(connection)
    for statement in _APPEND_ONLY[dialect]:
        connection.execute(text(statement))
    connection.execute(insert(schema).values(version=VERSION))
