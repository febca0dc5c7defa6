"""A run: one directory, worked through stage by stage, at any time resumable.

    run = Run.create("runs/mine", clips="clips/", queries="queries/", model="tiny-wan")
    run.curate()
    run.selection()

Every stage computes only what is not there yet. This module puts the stages in order and carries rows
between them; what a stage does lives in its room.
"""

from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from motive import found
from motive.clips.sampling import FrameSampler
from motive.errors import UserError
from motive.gradients.objective import Objective
from motive.influence.estimated import EstimatedScores
from motive.influence.features import Features
from motive.influence.scores import Scores
from motive.plan import Plan
from motive.preflight import require_readable_datasets, require_sound_settings
from motive.record import NAME as RECORD
from motive.record import Record, read_record, record_text, with_absolute_paths
from motive.rows import (
    all_entries,
    caption_rows,
    clip_rows,
    feature_rows,
    file_rows,
    followed,
    ready_for_gradients,
)
from motive.runs import members as membership
from motive.runs import settling
from motive.runs.config import RunConfig, flatten, make_config, refuse_changes
from motive.runs.engine import make_engine, require_engine
from motive.runs.locks import locked
from motive.runs.members import ByClipId, Members, Role
from motive.runs.progress import Progress
from motive.runs.provenance import write_atomically
from motive.runs.remote import RunPath, cache_folder, on_disk, run_path
from motive.runs.stamps import Stamps, stamp_of
from motive.runs.store import Store
from motive.runs.tables import Row, Table
from motive.runs.texts import is_among

_ROLES: dict[Role, str] = {"clip": "clips", "query": "queries"}
OUTPUTS = {"score": "scores.parquet", "select": "selection.csv", "report": "report.html"}


class Run:
    """A run directory. `Run.create` makes or takes up one, `Run.open` opens one that exists.

    folder: where it lies, on a disk or on an object store (`motive.runs.remote`).
    record: what its run.yaml said of it; None for a run that is not written yet.
    """

    def __init__(
        self,
        folder: RunPath,
        config: RunConfig,
        progress: Progress | None = None,
        record: Record | None = None,
    ) -> None:
        self.folder, self.config = folder, config
        self.progress = progress or Progress(quiet=True)
        self.plan = Plan(folder, config, record.dtypes if record else None)
        self.store = Store(folder, make_engine(config.compute.engine, config.compute.address))

    @property
    def path(self) -> Path:
        """The run directory, for what works on a disk alone.

        Raises UserError when it lies on an object store.
        """
        return on_disk(self.folder)

    # Making and opening.

    @staticmethod
    def create(out: str | RunPath, *, progress: Progress | None = None, **settings: Any) -> "Run":
        """A run directory for these settings, new or taken up where it was.

        settings: of `RunConfig`; nested ones with two underscores (`selection__fraction=0.2`) or as
            dictionaries.

        Nothing is written unless the settings make sense: the model is whole and one that we know, it
        takes the size, it has parameters of that name, they can be projected like that, the datasets can
        be read, at least one query decodes, and the directory can be written.

        Raises UserError otherwise, or when `out` holds a run with other settings.
        """
        dotted = {name.replace("__", "."): value for name, value in settings.items()}
        return Run.create_from(make_config(dotted), run_path(out), progress)

    @staticmethod
    def create_from(config: RunConfig, out: RunPath, progress: Progress | None = None) -> "Run":
        """As `create`, from a whole configuration."""
        config = with_absolute_paths(config)
        file, record = out / RECORD, None
        if file.exists():
            record = read_record(file)
            refuse_changes(record.config, config, out)
        elif isinstance(out, Path) and out.exists() and not out.is_dir():
            raise UserError(f"{out} is a file: choose another --out")
        run = Run(out, config, progress, record)
        require_sound_settings(run.plan, record)
        if not run.store.members.exists():
            require_readable_datasets(run.plan, run._media)
        try:
            if isinstance(out, Path):
                out.mkdir(parents=True, exist_ok=True)
            write_atomically(file, record_text(run.plan, record))
            run.plan.keep_digests()
        except OSError as error:
            raise UserError(
                f"{out} cannot be written ({error.strerror}): choose another --out"
            ) from None
        return run

    @staticmethod
    def open(path: str | RunPath, progress: Progress | None = None) -> "Run":
        """The run in `path`.

        Raises UserError when there is none.
        """
        folder = run_path(path)
        file = folder / RECORD
        if not file.is_file():
            raise UserError(f"{path} holds no run (no run.yaml): make one with motive curate")
        record = read_record(file)
        return Run(folder, record.config, progress, record)

    @property
    def sampler(self) -> FrameSampler:
        """Which frames of a file are its clip."""
        return self.plan.sampler

    @property
    def objective(self) -> Objective:
        """What the run's features were or will be made with: those of the clips, where queries differ."""
        return self.plan.objective

    def with_estimator(self, name: str) -> "Run":
        """The same run with another estimator of influence, which its run.yaml names once `keep` is called.

        Features of the estimators lie side by side and never mix.

        Raises UserError for a name that there is not, or settings that the estimator does not take.
        """
        values = flatten(self.config.model_dump()) | {"gradients.estimator": name}
        record = read_record(self.folder / RECORD)
        run = Run(self.folder, make_config(values), self.progress, record)
        require_sound_settings(run.plan, None)
        return run

    def use_engine(self, name: str | None, address: str | None) -> None:
        """Compute by another engine than the one that run.yaml names, as long as this object lives.

        None: as run.yaml says.

        Raises UserError as `motive.runs.engine.require_engine` does.
        """
        compute = self.config.compute
        if name is None:
            name, address = compute.engine, address or compute.address
        require_engine(name, address)
        self.store.engine = make_engine(name, address)

    def keep(self) -> None:
        """Write the run's settings to its run.yaml, and what follows from them."""
        file = self.folder / RECORD
        write_atomically(file, record_text(self.plan, read_record(file)))

    # The stages.

    def curate(self, *, report: bool = True) -> None:
        """All stages in order, the last one if `report`; what is up to date is left as it is."""
        for stage in ("ingest", "track", "encode", "gradients"):
            getattr(self, stage)()
        # What the outputs depend on is settled by now, and so is what they were made from.
        stamp, made_from = self.stamp(), self.stamps.read()
        for stage, output in OUTPUTS.items():
            if stage == "report" and not report:
                continue
            if made_from.get(stage) != stamp or not (self.folder / output).is_file():
                getattr(self, stage)()

    def forget_failures(self) -> None:
        """Let the next stages try again what failed before; results stay."""
        if self.store.failures.exists():
            self.store.failures.replace([])

    def ingest(self) -> None:
        """Read both datasets, and decode every file that was not seen before.

        Raises UserError when no clip or no query can be used.
        """
        entries = all_entries(self.config, self._media)
        stage = self.plan.ingest_stage
        self.store.work(stage, file_rows(entries), self.progress)
        members = settling.settle(
            entries, self.store.results(stage), stage.fingerprint(), self.store.failed(stage)
        )
        for role, name in _ROLES.items():
            if not len(members.usable(role)):
                mine = members.of_role(role)
                raise UserError(
                    f"none of the {len(mine)} {name} can be used "
                    f"({mine[0].file_name}: {mine[0].reason}): give --{name} with videos that play"
                )
        # A file that was put back in its place deserves another try at the stages it failed in. What is
        # new is told from the members as they were, so that a kill before they are saved forgets nothing.
        # Under a lock: of two processes the second must not take for new what the first already works on.
        with locked(self.folder / "claims" / "members.lock"):
            self._retry_new(members)
            membership.save(self.store.members, members)
        self.__dict__.pop("members", None)

    def _retry_new(self, members: Members) -> None:
        """Forget failures of clips that lie in another file than before."""
        failed = {row["key"] for row in self.store.failures.rows(columns=["key"])}
        if not failed:
            return
        usable = members.usable()
        some = usable.take(is_among(usable.column("clip_id"), failed))
        before = Members.stored(self.store.members)
        same = before.take(is_among(before.column("file"), some.column("file").to_pylist()))
        known = {(m.file, m.clip_id) for m in same}
        fresh = {m.clip_id for m in some if (m.file, m.clip_id) not in known}
        self.store.failures.drop(sorted(fresh))

    def track(self) -> None:
        """Follow the motion of every clip and query; `motion.csv` has the clips' statistics."""
        from motive.results import write_motion

        self.store.work(self.plan.track_stage, clip_rows(self.members.usable()), self.progress)
        write_motion(self)

    def score_motion(self) -> None:
        """The stages up to tracking: `motion.csv`, and `failures.csv` for the files without motion."""
        from motive.results import write_failures

        self.ingest()
        self.track()
        write_failures(self)

    def encode(self) -> None:
        """Latents of every clip and embeddings of every caption, but of clips that failed before."""
        members = followed(self.members, self.plan, self.store)
        self.store.work(self.plan.encode_stage, clip_rows(members), self.progress)
        self.store.work(self.plan.text_stage, caption_rows(members), self.progress)

    def gradients(self, objective: Objective | None = None) -> None:
        """Gradient features of every clip and query, under the run's objectives or another.

        Another objective's features lie beside the run's own and never mix with them.
        """
        if objective is not None:
            self._gradients(self.members, objective)
            return
        if self.plan.estimator.preconditioned:
            # Of several processes one makes them, and the others wait for it.
            with locked(self.folder / "claims" / "moments.lock"):
                self._second_moments()
        clips, queries = self.plan.objective, self.plan.objective_of("query")
        if clips == queries:
            self._gradients(self.members, clips)
            return
        self._gradients(self.members.usable("clip"), clips)
        self._gradients(self.members.usable("query"), queries, of_queries=True)
        if read_record(self.folder / RECORD).config == self.config:
            self.keep()  # only now the objectives have the second moments' digest

    def _second_moments(self) -> None:
        """What the estimator scales gradients by; made once in a run, from the clips that it has then."""
        file = self.plan.moments_file
        if file.digest() is not None:
            return
        from motive.gradients.second_moments import CLIPS, SecondMoments

        ready = ready_for_gradients(self.members.usable("clip"), self.plan, self.store)
        wanted = feature_rows(ready, self.plan, self.store)
        keys = list(wanted.keys[:CLIPS])
        stage = SecondMoments(
            self.plan.backbone, self.plan.moments_objective, self.plan.finetuned, file
        )
        with self.store.log.measure(stage.name) as measured:
            stage.make(keys, wanted.rows, self.progress)
            measured.done = len(keys)

    def _gradients(
        self, members: Members, objective: Objective, *, of_queries: bool = False
    ) -> None:
        self.store.save_objective(objective.id, objective.to_json())
        ready = ready_for_gradients(members, self.plan, self.store)
        wanted = feature_rows(ready, self.plan, self.store)
        left = self.feature_table(objective).without(wanted.keys.array, objective.id)
        failed = self.store.failures.keys(objective.id)
        name = "query gradients" if of_queries else "gradients"
        # Else a kill came between the last row and its count, or there is work.
        if set(left.to_pylist()) <= failed and name in self.store.log.read():
            return
        from motive.gradients.stage import GradientStage, QueryGradientStage

        stage = (QueryGradientStage if of_queries else GradientStage)(
            self.plan.backbone,
            objective,
            self.config.compute.batch,
            self.plan.finetuned,
            self.plan.moments_file if objective.preconditioner else None,
        )
        self.store.work(stage, wanted, self.progress)

    def score(self) -> None:
        """`scores.parquet`: the influence of every clip on every query."""
        from motive.results import write_scores

        with self.store.log.measure("score") as measured:
            measured.done = write_scores(self)
        self._set_stamp("score")

    def select(self) -> None:
        """`selection.csv`, all clips best first, and `failures.csv`."""
        from motive.results import write_failures, write_selection

        with self.store.log.measure("select") as measured:
            measured.done = write_selection(self)
            measured.failed = write_failures(self)
        self._set_stamp("select")

    def report(self, *, check: list[dict[str, object]] | None = None, check_note: str = "") -> None:
        """`report.html`, one file to look at.

        check, check_note: a comparison of methods, where the truth is known.
        """
        from motive.web.run_report import write_report

        with self.store.log.measure("report"):
            write_report(self, check=check, check_note=check_note)
        self._set_stamp("report")

    def stamp(self) -> str:
        """Of everything that scores, selection and report depend on."""
        settings = [self.objective.id, self.config.selection.model_dump_json()]
        if self.plan.estimator.name != "paper":
            settings += [self.plan.estimator.name, self.plan.objective_of("query").id]
        return stamp_of(settings, chain(self.members, self.failures()))

    @cached_property
    def stamps(self) -> Stamps:
        """The stamp that each output was made with."""
        return Stamps(self.folder)

    def _set_stamp(self, stage: str) -> None:
        self.stamps.set(stage, self.stamp())

    # What was found.

    @cached_property
    def members(self) -> Members:
        """Every file of both datasets, clips before queries.

        Raises UserError when nothing was ingested yet.
        """
        found = Members.stored(self.store.members)
        if not len(found):
            raise UserError(
                f"nothing was ingested in {self.folder} yet: run motive ingest {self.folder}"
            )
        return found

    def usable(self, role: Role) -> ByClipId:
        """The clips or the queries that ingest could use, by clip id, in dataset order."""
        return ByClipId(self.members.usable(role))

    def features(self, role: Role, objective: Objective | None = None) -> Features:
        """The features of the clips or of the queries, those that have one.

        Raises UserError when there is none, naming the differing fields if another objective has some.
        """
        return found.features(self, role, objective)

    def featured(self, role: Role, objective: Objective | None = None) -> Members:
        """The clips or the queries that have a feature, in dataset order.

        Raises UserError as `features` does.
        """
        return found.featured(self, role, objective)

    def score_features(self, queries: Features) -> Scores | EstimatedScores:
        """Scores of these queries with every clip that has a feature, by feature key; to be closed.

        Raises UserError when the queries' objective is another than the run's, naming the field.
        """
        return found.score_features(self, queries)

    def failures(self) -> list[tuple[str, str, str]]:
        """`(file_name, stage, reason)` of every file that is not ranked, or not used as a query."""
        return found.failures(self)

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

    # What is there.

    @property
    def _media(self) -> Path:
        """Where datasets of tar files are unpacked."""
        return cache_folder(self.folder, "media")

    def feature_table(self, objective: Objective) -> Table:
        """The table of an objective's features, to be read."""
        # To read, no columns need be named; the stage that knows them takes torch to import.
        return self.store.table(objective.feature_table, pa.schema([]))
