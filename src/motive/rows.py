"""The rows that stages are given: what the datasets name, and what earlier stages made of it."""

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from motive.backbones.encode import caption_id
from motive.clips.formats import read_dataset
from motive.clips.ingest import file_key
from motive.errors import UserError
from motive.plan import Plan
from motive.runs.config import RunConfig
from motive.runs.members import POLARITIES, Member, Role
from motive.runs.stage import Stage
from motive.runs.store import Store
from motive.runs.tables import Row

_JOIN = 16  # clips whose rows are read from the tables at once


def dataset_entries(config: RunConfig, role: Role, media: Path) -> list[Member]:
    """What a dataset names, before ingest.

    media: folder that a dataset of tar files is unpacked below.

    Raises UserError when the dataset cannot be read, or when a query's polarity is none.
    """
    source = config.clips if role == "clip" else config.queries
    root = Path(config.media_root) if config.media_root else None
    dataset = read_dataset(Path(source), media_root=root, extract_to=media / role)
    entries = [
        Member(
            role=role,
            file_name=r.file_name,
            path=str(r.path),
            file=file_key(r.path),
            caption=r.caption,
            caption_id=caption_id(r.caption),
            extra=_as_json(r.extra, r.file_name),
        )
        for r in dataset.records
    ]
    for entry in entries if role == "query" else []:
        if entry.polarity not in POLARITIES:
            raise UserError(
                f"the query {entry.file_name} has the polarity {entry.polarity!r}: "
                f"write {' or '.join(POLARITIES)}, or nothing for {POLARITIES[0]}"
            )
    named = {e.file_name for e in entries}
    for problem in dataset.problems:
        if problem.file_name not in named:
            entries.append(
                Member(role, problem.file_name, "", "", "", "", "{}", reason=problem.reason)
            )
    return entries


def _as_json(extra: dict[str, object], file_name: str) -> str:
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


def file_rows(entries: Iterable[Member]) -> dict[str, Row]:
    """For ingest, by file key."""
    return {
        e.file: {"key": e.file, "path": e.path, "file_name": e.file_name}
        for e in entries
        if e.usable
    }


def clip_rows(members: Iterable[Member]) -> dict[str, Row]:
    """For tracking and encoding, by clip id. Of several files with one content the first is read."""
    return {
        m.clip_id: {"key": m.clip_id, "file": m.file, "path": m.path, "file_name": m.file_name}
        for m in reversed(list(members))
    }


def caption_rows(members: Iterable[Member]) -> dict[str, Row]:
    """For encoding of text, by caption id."""
    captions = {m.caption_id: m.caption for m in members}
    return {k: {"key": k, "caption": c, "file_name": c} for k, c in captions.items()}


def followed(members: Iterable[Member], plan: Plan, store: Store) -> list[Member]:
    """The usable members, but those whose motion could not be followed: they will not be ranked."""
    failed = store.failed(plan.track_stage)
    return [m for m in members if m.usable and m.clip_id not in failed]


def ready_for_gradients(members: list[Member], plan: Plan, store: Store) -> dict[str, Member]:
    """The members that came through tracking and encoding, by feature key; the others failed there.

    Raises UserError when one of those stages was not run.
    """
    tracked, encoded, read = (
        store.done(stage) for stage in (plan.track_stage, plan.encode_stage, plan.text_stage)
    )
    rest = followed(members, plan, store)
    for stage, command, missing in (
        (plan.track_stage, "track", {m.clip_id for m in members if m.usable} - tracked),
        (plan.encode_stage, "encode", {m.clip_id for m in rest} - encoded),
        (plan.text_stage, "encode", {m.caption_id for m in rest} - read),
    ):
        if missing := missing - store.failed(stage).keys():
            raise UserError(
                f"{len(missing)} clips are not through the {stage.name} stage yet: "
                f"run motive {command} {plan.path}"
            )
    return {
        m.feature_key: m
        for m in rest
        if m.clip_id in tracked and m.clip_id in encoded and m.caption_id in read
    }


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
