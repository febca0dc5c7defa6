"""The tables of a study's database; `migrations` makes them."""

from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

#: The one study that the database belongs to.
studies = Table("studies", metadata, Column("id", String(32), primary_key=True))

#: token_hash: SHA-256 of the link's secret; null for people whose judgements were collected elsewhere.
annotators = Table(
    "annotators",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(200), nullable=False, unique=True),
    Column("token_hash", String(64), unique=True),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("seen_at", DateTime(timezone=True), nullable=False),
)

#: One showing of an item to an annotator. id is part of addresses and says nothing. a_left and position
#: are null for judgements that were collected elsewhere; opened_at is when the page first showed it. One
#: that was opened, and left, is handed on as a copy, so that an answer that comes after all finds its place.
places = Table(
    "places",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("annotator_id", ForeignKey("annotators.id"), nullable=False),
    Column("item_id", String(32), nullable=False),
    Column("a_left", Boolean),
    Column("position", Integer),
    Column("opened_at", DateTime(timezone=True)),
    Column("handed_on", Boolean, nullable=False, default=False),
    UniqueConstraint("annotator_id", "item_id"),
    Index("ix_places_turn", "annotator_id", "position"),
)

#: At most one for each place, hence one for each annotator and item. winner: a, b or tie.
judgements = Table(
    "judgements",
    metadata,
    Column("place_id", ForeignKey("places.id"), primary_key=True),
    Column("winner", String(3), nullable=False),
    Column("response_ms", Integer),
    Column("answered_at", DateTime(timezone=True)),
)
