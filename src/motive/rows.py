"""The rows that stages are given: what the datasets name, and what earlier stages made of it."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
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
    entries = []
    dataset.records.reverse()
    while dataset.records:
        r = dataset.records.pop()  # let go of, so that no clip is held twice
        entries.append(
            Member(
                role=role,
                file_name=r.file_name,
                path=str(r.path),
                file=file_key(r.path),
                caption=r.caption,
                caption_id=caption_id(r.caption),
                extra=_as_json(r.extra, r.file_name),
            )
        )
    for entry in entries if role == "query" else []:
        if entry.polarity not in POLARITIES:
            raise UserError(
                f"the query {entry.file_name} has the polarity {entry.polarity!r}: "
                f"write {' or '.join(POLARITIES)}, or nothing for {POLARITIES[0]}"
            )
    named = {e.file_name for e in entries} if dataset.problems else set()
    for problem in dataset.problems:
        if problem.file_name not in named:
            entries.append(
                Member(role, problem.file_name, "", "", "", "", "{}", reason=problem.reason)
            )
    return entries


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


class _Rows(Mapping[str, Row]):
    """Rows by key, each made of its member when it is asked for."""

    def __init__(self, members: dict[str, Member], make: Callable[[str, Member], Row]) -> None:
        self._members, self._make = members, make

    def __getitem__(self, key: str) -> Row:
        return self._make(key, self._members[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, key: object) -> bool:
        return key in self._members


def file_rows(entries: Iterable[Member]) -> Mapping[str, Row]:
    """For ingest, by file key."""
    return _Rows(
        {e.file: e for e in entries if e.usable},
        lambda key, e: {"key": key, "path": e.path, "file_name": e.file_name},
    )


def clip_rows(members: Iterable[Member]) -> Mapping[str, Row]:
    """For tracking and encoding, by clip id. Of several files with one content the first is read."""
    return _Rows(
        {m.clip_id: m for m in reversed(list(members))},
        lambda key, m: {"key": key, "file": m.file, "path": m.path, "file_name": m.file_name},
    )


def caption_rows(members: Iterable[Member]) -> Mapping[str, Row]:
    """For encoding of text, by caption id."""
    return _Rows(
        {m.caption_id: m for m in members},
        lambda key, m: {"key": key, "caption": m.caption, "file_name": m.caption},
    )


def followed(members: Iterable[Member], plan: Plan, store: Store) -> list[Member]:
    """The usable members, but those whose motion could not be followed: they will not be ranked."""
    failed = store.failed(plan.track_stage)
    return [m for m in members if m.usable and m.clip_id not in failed]


def ready_for_gradients(members: list[Member], plan: Plan, store: Store) -> dict[str, Member]:
    """The members that came through tracking and encoding, by feature key; the others failed there.

    Raises UserError when one of those stages was not run.
    """
    rest = followed(members, plan, store)
    untracked = store.without(plan.track_stage, (m.clip_id for m in members if m.usable))
    not_encoded = store.without(plan.encode_stage, (m.clip_id for m in rest))
    unread = store.without(plan.text_stage, (m.caption_id for m in rest))
    for stage, command, without in (
        (plan.track_stage, "track", untracked),
        (plan.encode_stage, "encode", not_encoded),
        (plan.text_stage, "encode", unread),
    ):
        if missing := without - store.failed(stage).keys():
            raise UserError(
                f"{len(missing)} clips are not through the {stage.name} stage yet: "
                f"run motive {command} {plan.path}"
            )
    return {
        m.feature_key: m
        for m in rest
        if m.clip_id not in untracked
        and m.clip_id not in not_encoded
        and m.caption_id not in unread
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
