"""The rows that stages are given: what the datasets name, and what earlier stages made of it."""

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

from motive.backbones.encode import caption_id
from motive.clips.formats import read_dataset
from motive.clips.ingest import file_key
from motive.clips.record import ClipRecord
from motive.errors import UserError
from motive.plan import Plan
from motive.runs.config import RunConfig
from motive.runs.members import POLARITIES, SCHEMA, Member, Members, Role, as_row
from motive.runs.placed import Spool
from motive.runs.stage import Stage
from motive.runs.store import Store
from motive.runs.tables import Row
from motive.runs.texts import Texts, ascending
from motive.runs.wanted import Wanted

_JOIN = 16  # clips whose rows are read from the tables at once


def dataset_entries(config: RunConfig, role: Role, media: Path) -> Members:
    """What a dataset names, before ingest.

    media: folder that a dataset of tar files is unpacked below.

    Raises UserError when the dataset cannot be read, or when a query's polarity is none.
    """
    entries = Spool(SCHEMA)
    _read_into(entries, config, role, media)
    return Members(entries)


def all_entries(config: RunConfig, media: Path) -> Members:
    """As `dataset_entries`, of both datasets, clips before queries."""
    entries = Spool(SCHEMA)
    _read_into(entries, config, "clip", media)
    _read_into(entries, config, "query", media)
    return Members(entries)


def _read_into(entries: Spool, config: RunConfig, role: Role, media: Path) -> None:
    source = config.clips if role == "clip" else config.queries
    root = Path(config.media_root) if config.media_root else None

    def take(record: ClipRecord) -> None:
        entry = Member(
            role=role,
            file_name=record.file_name,
            path=str(record.path),
            file=file_key(record.path),
            caption=record.caption,
            caption_id=caption_id(record.caption),
            extra=_as_json(record.extra, record.file_name),
        )
        if role == "query" and entry.polarity not in POLARITIES:
            raise UserError(
                f"the query {entry.file_name} has the polarity {entry.polarity!r}: "
                f"write {' or '.join(POLARITIES)}, or nothing for {POLARITIES[0]}"
            )
        entries.append(as_row(entry))

    dataset = read_dataset(Path(source), media_root=root, extract_to=media / role, keep=take)
    for problem in dataset.problems:
        if not problem.of_record:
            fault = Member(role, problem.file_name, "", "", "", "", "{}", reason=problem.reason)
            entries.append(as_row(fault))


def _as_json(extra: dict[str, object], file_name: str) -> str:
    if not extra:
        return "{}"  # the same text for all
    try:
        text = json.dumps(extra, default=str, ensure_ascii=False)
        text.encode()
    except RecursionError:
        raise UserError(
            f"the metadata of {file_name} is nested too deeply: take that out"
        ) from None
    except UnicodeEncodeError:  # half of a surrogate pair: spelled out, it can be kept
        text = json.dumps(extra, default=str)
    return text


def _wanted(members: Members, column: str, rows_of: Callable[[Members], Iterable[Row]]) -> Wanted:
    """Rows by a column of the members; of several with one value the first is read."""
    keys, places = ascending(members.column(column))
    asked = Texts(keys)

    def rows(some: list[str]) -> Iterable[Row]:
        return rows_of(members.take(places[[asked.place_of(key) for key in some]]))

    return Wanted(keys, rows)


def file_rows(entries: Members) -> Wanted:
    """For ingest, by file key."""
    return _wanted(
        entries.usable(),
        "file",
        lambda some: ({"key": m.file, "path": m.path, "file_name": m.file_name} for m in some),
    )


def clip_rows(members: Members) -> Wanted:
    """For tracking and encoding, by clip id. Of several files with one content the first is read."""

    def rows_of(some: Members) -> Iterator[Row]:
        for m in some:
            yield {"key": m.clip_id, "file": m.file, "path": m.path, "file_name": m.file_name}

    return _wanted(members, "clip_id", rows_of)


def caption_rows(members: Members) -> Wanted:
    """For encoding of text, by caption id."""
    return _wanted(
        members,
        "caption_id",
        lambda some: (
            {"key": m.caption_id, "caption": m.caption, "file_name": m.caption} for m in some
        ),
    )


def feature_rows(members: Members, plan: Plan, store: Store) -> Wanted:
    """For gradients, by feature key: of members that are ready for them."""
    return _wanted(members, "feature_key", lambda some: gradient_rows(some, plan, store))


def followed(members: Members, plan: Plan, store: Store) -> Members:
    """The usable members, but those whose motion could not be followed: they will not be ranked."""
    return members.usable().without("clip_id", store.failed(plan.track_stage))


def ready_for_gradients(members: Members, plan: Plan, store: Store) -> Members:
    """The members that came through tracking and encoding; the others failed there.

    Raises UserError when one of those stages was not run.
    """
    usable = members.usable()
    untracked = store.without(plan.track_stage, usable.column("clip_id"))
    ready = followed(members, plan, store)
    not_encoded = store.without(plan.encode_stage, ready.column("clip_id"))
    unread = store.without(plan.text_stage, ready.column("caption_id"))
    for stage, command, column, left in (
        (plan.track_stage, "track", "clip_id", untracked),
        (plan.encode_stage, "encode", "clip_id", not_encoded),
        (plan.text_stage, "encode", "caption_id", unread),
    ):
        if missing := len(set(left.to_pylist()) - store.failed(stage).keys()):
            raise UserError(
                f"{missing} clips are not through the {stage.name} stage yet: "
                f"run motive {command} {plan.path}"
            )
        ready = ready.without(column, left.to_pylist())
    return ready


def gradient_rows(members: Iterable[Member], plan: Plan, store: Store) -> Iterator[Row]:
    """For gradients: each clip with its motion, latents and caption, read as they are asked for."""
    waiting = iter(members)

    def rows_of(stage: Stage, keys: list[str]) -> dict[str, Row]:
        return store.results(stage).lookup(keys, stage.fingerprint())

    while batch := list(islice(waiting, _JOIN)):
        clip_ids = [m.clip_id for m in batch]
        motion = rows_of(plan.track_stage, clip_ids)
        latents = rows_of(plan.encode_stage, clip_ids)
        texts = rows_of(plan.text_stage, [m.caption_id for m in batch])
        for member in batch:
            yield {
                "key": member.feature_key,
                "file_name": member.file_name,
                "clip_id": member.clip_id,
                "caption_id": member.caption_id,
                "frames": member.frames,
                "motion": motion[member.clip_id],
                "video": latents[member.clip_id],
                "text": texts[member.caption_id],
            }
