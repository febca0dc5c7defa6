"""A run: one directory, worked through stage by stage, at any time resumable.

    run = Run.create("runs/mine", clips="clips/", queries="queries/", model="tiny-wan")
    run.curate()
    run.selection()

Every stage computes only what is not there yet. This module puts the stages in order and carries rows
between them; what a stage does lives in its room.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from motive import __version__
from motive.backbones.encode import caption_id
from motive.clips.decoding import decode_clip
from motive.clips.formats import read_dataset
from motive.clips.ingest import file_key
from motive.clips.sampling import FrameSampler
from motive.errors import ClipError, UserError
from motive.gradients.objective import Objective, require_same
from motive.influence.features import Features
from motive.plan import Plan
from motive.runs import members as membership
from motive.runs.config import RunConfig, make_config, read_yaml, refuse_changes
from motive.runs.members import Member, Role
from motive.runs.progress import Progress
from motive.runs.provenance import now, revision, versions, write_atomically
from motive.runs.stage import Stage
from motive.runs.store import Store
from motive.runs.tables import Row, Table

OUTPUTS = {"scores.parquet": "score", "selection.csv": "select", "report.html": "report"}
_JOIN = 16  # clips whose rows are read from the tables at once


class Run:
    """A run directory. `Run.create` makes or takes up one, `Run.open` opens one that exists."""

    def __init__(self, path: Path, config: RunConfig, progress: Progress | None = None) -> None:
        self.path, self.config = path, config
        self.progress = progress or Progress(quiet=True)
        self.plan, self.store = Plan(path, config), Store(path)

    # Making and opening.

    @staticmethod
    def create(out: str | Path, *, progress: Progress | None = None, **settings: Any) -> "Run":
        """A run directory for these settings, new or taken up where it was.

        settings: of `RunConfig`; nested ones with two underscores (`selection__fraction=0.2`) or as
            dictionaries.

        Nothing is written unless the settings make sense: the datasets can be read, at least one
        query decodes, the model is one that we know and the directory can be written.

        Raises UserError otherwise, or when `out` holds a run with other settings.
        """
        dotted = {name.replace("__", "."): value for name, value in settings.items()}
        return Run.create_from(make_config(dotted), Path(out), progress)

    @staticmethod
    def create_from(config: RunConfig, out: Path, progress: Progress | None = None) -> "Run":
        """As `create`, from a whole configuration."""
        config = _with_absolute_paths(config)
        record = out / "run.yaml"
        if record.exists():
            refuse_changes(_recorded_config(record), config, out)
        elif out.exists() and not out.is_dir():
            raise UserError(f"{out} is a file: choose another --out")
        run = Run(out, config, progress)
        run._check_before_writing()
        try:
            out.mkdir(parents=True, exist_ok=True)
            write_atomically(record, run._record(record))
        except OSError as error:
            raise UserError(
                f"{out} cannot be written ({error.strerror}): choose another --out"
            ) from None
        return run

    @staticmethod
    def open(path: str | Path, progress: Progress | None = None) -> "Run":
        """The run in `path`.

        Raises UserError when there is none.
        """
        record = Path(path) / "run.yaml"
        if not record.is_file():
            raise UserError(f"{path} holds no run (no run.yaml): make one with motive curate")
        return Run(Path(path), _recorded_config(record), progress)

    def _check_before_writing(self) -> None:
        self.plan.backbone.frame_map(self.plan.sampler.usable_length(self.plan.sampler.max_frames))
        self.plan.timesteps  # noqa: B018  (refuses wrong ones)
        from motive.gradients.projection import make_projection

        wanted = self.config.gradients
        make_projection(wanted.projection, wanted.dim, 0, {"any": (2**24,)})
        self.plan.track_stage.fingerprint()  # finds the tracker's weights
        if not self.store.members.exists():
            # Queries first: reading a dataset of tar files unpacks it, and clips are many.
            _one_must_decode(self._entries("query"), self.plan.sampler)
            self._entries("clip")

    def _record(self, path: Path) -> str:
        """The resolved configuration, with everything that the numbers depend on."""
        old = read_yaml(path) if path.exists() else {}
        content = {
            "motive": __version__,
            "revision": revision(),
            "created": old.get("created", now()),
            "versions": versions(),
            "model": {
                "name": self.config.model,
                "path": str(self.plan.source.path),
                "pipeline": self.plan.source.pipeline_class,
                "family": self.plan.backbone.family,
                "fingerprint": self.plan.model_fingerprint,
            },
            "objective_id": self.plan.objective.id,
            "objective": json.loads(self.plan.objective.to_json()),
            "config": self.config.model_dump(mode="json"),
        }
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)

    @property
    def sampler(self) -> FrameSampler:
        """Which frames of a file are its clip."""
        return self.plan.sampler

    @property
    def objective(self) -> Objective:
        """What the run's features were or will be made with."""
        return self.plan.objective

    # The stages.

    def curate(self) -> None:
        """All stages in order; what is up to date is left as it is."""
        for stage in ("ingest", "track", "encode", "gradients"):
            getattr(self, stage)()
        # What the outputs depend on is settled by now, and so is what they were made from.
        stamp, made_from = self._stamp(), self._stamps()
        for output, stage in OUTPUTS.items():
            if made_from.get(stage) != stamp or not (self.path / output).is_file():
                getattr(self, stage)()

    def forget_failures(self) -> None:
        """Let the next stages try again what failed before; results stay."""
        if self.store.failures.exists():
            self.store.failures.replace([])

    def ingest(self) -> None:
        """Read both datasets, and decode every file that was not seen before.

        Raises UserError when no clip or no query can be used.
        """
        entries = self._entries("clip") + self._entries("query")
        rows = {
            e.file: {"key": e.file, "path": e.path, "file_name": e.file_name}
            for e in entries
            if e.usable
        }
        stage = self.plan.ingest_stage
        fresh = set(self.store.work(stage, rows, self.progress))
        found = {r["key"]: r for r in self.store.results(stage).rows(stage.fingerprint())}
        settled = membership.settle(entries, found, self.store.failed(stage))
        for role, name in (("clip", "clips"), ("query", "queries")):
            mine = [m for m in settled if m.role == role]
            if not any(m.usable for m in mine):
                first = mine[0]
                raise UserError(
                    f"none of the {len(mine)} {name} can be used ({first.file_name}: {first.reason}): "
                    f"give --{name} with videos that play"
                )
        # A file that was put back in its place deserves another try at the stages it failed in.
        self.store.failures.drop([m.clip_id for m in settled if m.file in fresh and m.usable])
        membership.save(self.store.members, settled)
        self.__dict__.pop("members", None)

    def track(self) -> None:
        """Follow the motion of every clip and query; `motion.csv` has the clips' statistics."""
        from motive.results import write_motion

        self.store.work(self.plan.track_stage, self._clip_rows(), self.progress)
        write_motion(self)

    def score_motion(self) -> None:
        """The stages up to tracking: `motion.csv`, and `failures.csv` for the files without motion."""
        from motive.results import write_failures

        self.ingest()
        self.track()
        write_failures(self)

    def encode(self) -> None:
        """Latents of every clip and embeddings of every caption."""
        self.store.work(self.plan.encode_stage, self._clip_rows(), self.progress)
        captions = {m.caption_id: m.caption for m in self.members if m.usable}
        rows = {k: {"key": k, "caption": c, "file_name": c} for k, c in captions.items()}
        self.store.work(self.plan.text_stage, rows, self.progress)

    def gradients(self, objective: Objective | None = None) -> None:
        """Gradient features of every clip and query, under the run's objective or another.

        Another objective's features lie beside the run's own and never mix with them.
        """
        from motive.gradients.stage import GradientStage

        objective = objective or self.plan.objective
        self.store.save_objective(objective.id, objective.to_json())
        stage = GradientStage(self.plan.backbone, objective)
        ready = self._ready_for_gradients()
        wanted = {m.feature_key: m for m in self.members if m.usable and ready(m)}
        self.store.work(stage, wanted, self.progress, self._join)

    def score(self) -> None:
        """`scores.parquet`: the influence of every clip on every query."""
        from motive.results import write_scores

        with self.store.log.measure("score") as counts:
            counts["done"] = write_scores(self)
        self._set_stamp("score")

    def select(self) -> None:
        """`selection.csv`, all clips best first, and `failures.csv`."""
        from motive.results import write_failures, write_selection

        with self.store.log.measure("select") as counts:
            counts["done"] = write_selection(self)
            counts["failed"] = write_failures(self)
        self._set_stamp("select")

    def report(self) -> None:
        """`report.html`, one file to look at."""
        from motive.web.run_report import write_report

        with self.store.log.measure("report"):
            write_report(self)
        self._set_stamp("report")

    def _stamp(self) -> str:
        """Of everything that scores, selection and report depend on."""
        everything = [self.objective.id, self.config.selection.model_dump_json()]
        everything += [repr(member) for member in self.members]
        everything += [repr(failure) for failure in self.failures()]
        return hashlib.blake2b("\n".join(everything).encode(), digest_size=10).hexdigest()

    def _stamps(self) -> dict[str, str]:
        file = self.path / "outputs.json"
        return json.loads(file.read_text()) if file.is_file() else {}

    def _set_stamp(self, stage: str) -> None:
        stamps = {**self._stamps(), stage: self._stamp()}
        write_atomically(self.path / "outputs.json", json.dumps(stamps, indent=1) + "\n")

    # What was found.

    @cached_property
    def members(self) -> list[Member]:
        """Every file of both datasets.

        Raises UserError when nothing was ingested yet.
        """
        found = membership.load(self.store.members)
        if not found:
            raise UserError(
                f"nothing was ingested in {self.path} yet: run motive ingest {self.path}"
            )
        return found

    def usable(self, role: Role) -> dict[str, Member]:
        """The clips or the queries that ingest could use, by clip id, in dataset order."""
        return {m.clip_id: m for m in self.members if m.role == role and m.usable}

    def features(self, role: Role, objective: Objective | None = None) -> Features:
        """The features of the clips or of the queries, those that have one.

        Raises UserError when there is none, naming the differing fields if another objective has some.
        """
        objective = objective or self.plan.objective
        wanted = list(self.usable(role).values())
        columns = ["key", "feature", "norm", "static"]
        keys = {m.feature_key for m in wanted}
        rows = self._feature_table().rows(objective.id, columns=columns)
        found = {r["key"]: r for r in rows if r["key"] in keys}
        have = [m for m in wanted if m.feature_key in found]
        missing = [m for m in wanted if m.feature_key not in found]
        failed = self._failures_by_key(objective)
        if any(m.feature_key not in failed and m.clip_id not in failed for m in missing):
            self._explain_missing(objective, len(missing), role)
        if not have:
            raise UserError(f"no {role} has a gradient feature: see failures.csv in {self.path}")
        mine = [found[m.feature_key] for m in have]
        return Features(
            objective,
            have,
            np.stack([r["feature"] for r in mine]),
            np.array([r["norm"] for r in mine]),
            np.array([r["static"] for r in mine], bool),
        )

    def failures(self) -> list[tuple[str, str, str]]:
        """`(file_name, stage, reason)` of every file that is not ranked, or not used as a query."""
        by_key = self._failures_by_key(self.plan.objective)
        features = self._feature_table().rows(self.plan.objective.id, columns=["key", "static"])
        static = {row["key"] for row in features if row["static"]}
        listed: dict[tuple[str, str], tuple[str, str, str]] = {}
        for member in self.members:
            stage, reason = "ingest", member.reason
            if not reason:
                stage, reason = (
                    by_key.get(member.clip_id)
                    or by_key.get(member.caption_id)
                    or by_key.get(member.feature_key)
                    or ("", "")
                )
            if not reason and member.role == "query" and member.feature_key in static:
                stage, reason = "score", "it shows no motion, so its gradient is zero"
            if reason:
                said = reason if member.role == "clip" else f"as a query: {reason}"
                listed.setdefault((member.file_name, member.path), (member.file_name, stage, said))
        return list(listed.values())

    def motion(self, *, columns: list[str] | None = None) -> dict[str, Row]:
        """The tracker's rows by clip id, with the maps or only some columns; `key` is one of them."""
        stage = self.plan.track_stage
        rows = self.store.results(stage).rows(stage.fingerprint(), columns=columns)
        return {r["key"]: r for r in rows}

    def selection(self) -> list[dict[str, str]]:
        """The rows of `selection.csv`, best first.

        Raises UserError when there is no selection yet.
        """
        from motive.results import read_selection

        return read_selection(self)

    def export(self, format: str, out: str | Path, *, link: bool = False) -> Any:
        """Write the selected clips as `format`; see `motive.clips.formats.write_dataset`."""
        from motive.results import export_selection

        return export_selection(self, format, Path(out), link=link)

    def info(self) -> dict[str, Any]:
        """Clips, queries, failures, objective, seconds and peak memory of each stage."""
        from motive.results import describe

        return describe(self)

    # Carrying rows.

    def _entries(self, role: Role) -> list[Member]:
        """What a dataset names, before ingest."""
        config = self.config
        source = config.clips if role == "clip" else config.queries
        root = Path(config.media_root) if config.media_root else None
        dataset = read_dataset(Path(source), media_root=root, extract_to=self.path / "media" / role)
        entries = [
            Member(
                role=role,
                file_name=r.file_name,
                path=str(r.path),
                file=file_key(r.path),
                caption=r.caption,
                caption_id=caption_id(r.caption),
                extra=json.dumps(r.extra, default=str, ensure_ascii=False),
            )
            for r in dataset.records
        ]
        named = {e.file_name for e in entries}
        for problem in dataset.problems:
            if problem.file_name not in named:
                entries.append(
                    Member(role, problem.file_name, "", "", "", "", "{}", reason=problem.reason)
                )
        return entries

    def _clip_rows(self) -> dict[str, Row]:
        return {
            m.clip_id: {"key": m.clip_id, "file": m.file, "path": m.path, "file_name": m.file_name}
            for m in reversed(self.members)
            if m.usable
        }

    def _join(self, members: Iterable[Member]) -> Iterator[Row]:
        """Rows of the gradient stage: each clip with its motion, latents and caption."""
        plan, waiting = self.plan, iter(members)

        def rows_of(stage: Stage, keys: list[str]) -> dict[str, Row]:
            return self.store.results(stage).lookup(keys, stage.fingerprint())

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

    def _ready_for_gradients(self) -> Callable[[Member], bool]:
        """Whether a member came through tracking and encoding; it may have failed there.

        Raises UserError when one of those stages was not run.
        """
        plan, usable = self.plan, [m for m in self.members if m.usable]
        tracked, encoded, read = (
            self.store.done(stage)
            for stage in (plan.track_stage, plan.encode_stage, plan.text_stage)
        )
        clip_ids, captions = {m.clip_id for m in usable}, {m.caption_id for m in usable}
        for stage, command, missing in (
            (plan.track_stage, "track", clip_ids - tracked),
            (plan.encode_stage, "encode", clip_ids - encoded),
            (plan.text_stage, "encode", captions - read),
        ):
            if missing := missing - self.store.failed(stage).keys():
                raise UserError(
                    f"{len(missing)} clips are not through the {stage.name} stage yet: "
                    f"run motive {command} {self.path}"
                )
        return lambda m: m.clip_id in tracked and m.clip_id in encoded and m.caption_id in read

    def _feature_table(self) -> Table:
        from motive.gradients.stage import GradientStage

        return self.store.table(GradientStage.table, GradientStage.schema)

    def _failures_by_key(self, objective: Objective) -> dict[str, tuple[str, str]]:
        made_by = {
            self.plan.track_stage.fingerprint(),
            self.plan.encode_stage.fingerprint(),
            self.plan.text_stage.fingerprint(),
            objective.id,
        }
        rows = [r for r in self.store.failures.rows() if r["made_by"] in made_by]
        # What failed in two stages is listed with the first of them.
        return {r["key"]: (r["stage"], r["reason"]) for r in reversed(rows)}

    def _explain_missing(self, objective: Objective, missing: int, role: Role) -> None:
        for other in self.store.other_objectives(objective.id):
            require_same(
                objective,
                Objective.from_json(other),
                mine_is="this run's settings",
                other_is="the features that are there",
            )
        noun = role if missing == 1 else {"clip": "clips", "query": "queries"}[role]
        raise UserError(
            f"{missing} {noun} have no gradient feature yet: run motive gradients {self.path}"
        )


def _recorded_config(record: Path) -> RunConfig:
    """What a run.yaml says of its run."""
    content = read_yaml(record).get("config")
    if not isinstance(content, dict):
        raise UserError(f"{record} has no config section: give a run.yaml that motive wrote")
    return make_config(content)


def _with_absolute_paths(config: RunConfig) -> RunConfig:
    """So that a run can be replayed from anywhere."""

    def absolute(path: str | None) -> str | None:
        return None if path is None else str(Path(path).expanduser().absolute())

    def absolute_if_there(name: str) -> str:
        place = Path(name).expanduser()
        return str(place.absolute()) if place.exists() else name

    motion = config.motion
    if motion.checkpoint is not None:
        motion = motion.model_copy(update={"checkpoint": absolute_if_there(motion.checkpoint)})
    return config.model_copy(
        update={
            "clips": absolute(config.clips),
            "queries": absolute(config.queries),
            "media_root": absolute(config.media_root),
            "model": absolute_if_there(config.model),
            "motion": motion,
        }
    )


def _one_must_decode(queries: list[Member], sampler: FrameSampler) -> None:
    reason = "the dataset names none"
    for query in queries:
        try:
            if query.usable:
                decode_clip(Path(query.path), sampler)
                return
            reason = f"{query.file_name}: {query.reason}"
        except (ClipError, OSError) as error:
            reason = f"{query.file_name}: {error}"
    raise UserError(
        f"none of the {len(queries)} queries can be used ({reason}): give --queries with videos that play"
    )
