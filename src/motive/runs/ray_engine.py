"""The Ray engine: the same stages as the local one, in workers all over a cluster.

The driver reads rows as they are asked for and deals them out in small blocks, two to a worker; whoever is
done gets the next. Only the driver commits. A block whose worker died is dealt again, so every row ends
in the tables once, whatever happens to machines.

Ray's actors are used directly. Ray Data would plan its blocks ahead and choose among them itself, and rows
that do not exist before others were claimed and read do not go well with that (docs/scaling.md).
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from motive.errors import UserError
from motive.runs.engine import Commits, StageReport
from motive.runs.progress import Progress
from motive.runs.ray_cluster import Share, connect, shares, surroundings
from motive.runs.ray_worker import Outcome, Worker
from motive.runs.stage import Failure, Stage
from motive.runs.tables import Row, Table

BLOCK_ROWS, BLOCK_BYTES = 32, 32 * 2**20  # of a block, at most
BLOCK_SECONDS = 20.0  # that a block should take: what a dead worker loses, and the end waits for
DEALT = 2  # blocks that a worker has, so that it need not wait for the next
LOOK_SECONDS = 15.0  # between two looks at what the cluster holds now
STARTS = 3  # workers that may die in a row before one begins to work
DEATHS = 2  # of workers that had one row alone, until it is the row's fault
HOPELESS = 3  # rows in a row that their workers died of: then it is not the rows
_WAIT = 1.0

# Workers between two stages, by Ray's name of the driver: Python and torch need not be started again.
_spare: dict[str, list[tuple[Share, Any]]] = {}


@dataclass
class _Block:
    """Rows that go to a worker together.

    deaths: of workers that had it; from the first on, it is a block of one row.
    """

    rows: list[Row]
    deaths: int = 0


@dataclass
class _Hired:
    """A worker, with what it was given and what Ray will say when that is done, in order."""

    actor: Any
    share: Share
    opening: Any
    spare: bool = False  # of the stage before
    ready: bool = False
    blocks: deque[tuple[Any, _Block]] = field(default_factory=deque)

    @property
    def waits_for(self) -> Any:
        """What it will be done with next; None when it has nothing to do."""
        if not self.ready:
            return self.opening
        return self.blocks[0][0] if self.blocks else None


def run_ray(
    stage: Stage,
    rows: Iterable[Row],
    total: int,
    results: Table,
    failures: Table,
    progress: Progress,
    committed: Callable[[int, int], None] = lambda done, failed: None,
    *,
    address: str | None = None,
) -> StageReport:
    """`motive.runs.engine.run_local`, but in workers of the Ray cluster at `address`.

    address: as of `motive.runs.ray_cluster.connect`.

    Raises UserError, besides what the stage and the tables raise, when the cluster cannot do it.
    """
    start = time.monotonic()
    commits = Commits(stage, results, failures, committed, most=None)
    notes: set[str] = set()
    if total:
        connect(address)
        results.create()
        places, rows = _places(stage, rows)
        with (
            surroundings(results.path.parent, places) as expected,
            progress.stage(stage.name, total) as advance,
        ):
            pool = _Pool(stage, (results, expected), total, progress)
            try:
                for outcome in pool.outcomes(rows, commits.flush_if_due):
                    _require_same_settings(stage, outcome)
                    commits.take(outcome.rows, outcome.failures, outcome.written)
                    commits.flush_if_due()
                    notes.update(outcome.notes)
                    for name in outcome.names:
                        advance(name)
            finally:
                # Also on Ctrl-C: what is done is worth keeping.
                try:
                    commits.flush()
                finally:
                    pool.close()
        commits.tidy(sorted(notes), progress)
    return commits.report(start)


def _places(stage: Stage, rows: Iterable[Row]) -> tuple[list[Path], Iterator[Row]]:
    """What a worker must see: the stage's files and the folder of the first clip. And the rows again."""
    ahead = iter(rows)
    first = next(ahead, None)
    if first is None:
        return stage.places, ahead
    clips = [Path(first["path"]).parent] if first.get("path") else []
    return [*stage.places, *clips], chain([first], ahead)


def _require_same_settings(stage: Stage, outcome: Outcome) -> None:
    made_by = {row["made_by"] for row in outcome.rows}
    made_by |= outcome.written.made_by if outcome.written else set()
    if made_by - {stage.fingerprint()}:
        raise UserError(
            f"a worker's results of the {stage.name} stage are made by other settings than "
            "the driver's: install the same versions on every machine"
        )


class _Pool:
    """Workers of one stage: as many as the cluster holds, replaced when they die."""

    def __init__(
        self,
        stage: Stage,
        arguments: tuple[Any, ...],
        total: int,
        progress: Progress,
    ) -> None:
        import ray

        self._ray, self._stage, self._progress = ray, stage, progress
        _send_code_along(ray)
        self._arguments = (ray.put(stage), *map(ray.put, arguments))
        self._worker = ray.remote(Worker)
        self._spare = _spare.setdefault(ray.get_runtime_context().get_job_id(), [])
        self._left = total
        self._hired: list[_Hired] = []
        self._again: deque[_Block] = deque()
        self._looked, self._begun = -math.inf, False
        self._died_at_start = self._died_of_rows = 0
        self._seconds, self._rows = 0.0, 0  # of the blocks that are done
        self._waiting_since: float | None = time.monotonic()

    def outcomes(self, rows: Iterator[Row], meanwhile: Callable[[], None]) -> Iterator[Outcome]:
        """What becomes of the rows, block by block, in the order in which they are done.

        meanwhile: called about once a second.
        """
        more = True
        while True:
            self._hire()
            more = self._deal(rows, more)
            if not more and not self._again and not any(h.blocks for h in self._hired):
                return
            by_ref = {h.waits_for: h for h in self._hired if h.waits_for is not None}
            if by_ref:
                for ref in self._ray.wait(list(by_ref), timeout=_WAIT)[0]:
                    yield from self._attend(by_ref[ref], ref)
            else:
                time.sleep(_WAIT)
            self._say_when_nobody_works()
            meanwhile()

    def close(self) -> None:
        """Let every worker close its stage. One that is at work is not waited for."""
        closing = {h.actor.close.remote(): h for h in self._hired if h.ready and not h.blocks}
        closed: list[Any] = []
        if closing:
            closed, _ = self._ray.wait(list(closing), num_returns=len(closing), timeout=10)
        for hired in self._hired:
            if any(closing[ref] is hired for ref in closed):
                self._spare.append((hired.share, hired.actor))
            else:
                self._dismiss(hired.actor)
        self._hired = []

    def _hire(self) -> None:
        """Have as many workers as there is room and work for, also where machines came or went."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        try:
            lacking = shares(self._stage.resources, self._ray.nodes())
        except UserError:
            if not self._begun:
                raise
            return  # every machine was taken away: there may be others in a while
        self._begun = True
        for hired in self._hired:
            if hired.share in lacking:
                lacking.remove(hired.share)
        busy = sum(len(h.blocks) for h in self._hired)
        for share in lacking[: max(0, self._left + len(self._again) + busy - len(self._hired))]:
            spare = next((one for one in self._spare if one[0] == share), None)
            if spare is not None:
                self._spare.remove(spare)
                actor = spare[1]
            else:
                # A dead one is not restarted but replaced: only so is it known what it was at.
                actor = self._worker.options(
                    num_cpus=share.cpus, num_gpus=share.gpus, max_restarts=0, max_task_retries=0
                ).remote()
            opening = actor.open.remote(*self._arguments)
            self._hired.append(_Hired(actor, share, opening, spare is not None))
        while self._spare:  # of another kind, whose place is needed
            self._dismiss(self._spare.pop()[1])

    def _deal(self, rows: Iterator[Row], more: bool) -> bool:
        """Give each worker that is ready its blocks. Returns whether there may be more rows."""
        for have in range(DEALT):
            for hired in self._hired:
                if hired.ready and len(hired.blocks) == have:
                    block = self._again.popleft() if self._again else None
                    if block is None and more:
                        block = self._next(rows)
                        more = block is not None
                    if block is None:
                        return more
                    ref = hired.actor.work.remote(block.rows)
                    hired.blocks.append((ref, block))
        return more

    def _next(self, rows: Iterator[Row]) -> _Block | None:
        """The next rows, few enough for all workers to be done at about the same time."""
        workers = sum(h.ready for h in self._hired)
        most = min(BLOCK_ROWS, math.ceil(self._left / (2 * DEALT * workers)))
        if not self._rows:
            most = min(most, 2)  # how long they take is not known yet
        elif self._seconds:
            most = min(most, math.ceil(BLOCK_SECONDS * self._rows / self._seconds))
        block: list[Row] = []
        size = 0
        for row in islice(rows, max(1, most)):
            block.append(row)
            size += _bytes_of(row)
            if size >= BLOCK_BYTES:
                break
        self._left = max(0, self._left - len(block))
        return _Block(block) if block else None

    def _attend(self, hired: _Hired, ref: Any) -> Iterator[Outcome]:
        """Take what a worker has to say: its results, an error, or its death."""
        from ray.exceptions import RayError, RayTaskError

        try:
            answer = self._ray.get(ref)
        except RayTaskError as error:
            # What a stage raises here it raises in the local engine too.
            raise (error.cause if isinstance(error.cause, Exception) else error) from None
        except RayError as error:
            yield from self._bury(hired, error)
            return
        self._died_at_start = 0
        if not hired.ready:
            hired.ready = True
            self._waiting_since = None
            return
        hired.blocks.popleft()
        self._seconds += answer.seconds
        self._rows += len(answer.names)
        self._died_of_rows = 0
        yield answer

    def _bury(self, hired: _Hired, error: Exception) -> Iterator[Outcome]:
        """Replace a dead worker, and see to its blocks."""
        self._hired.remove(hired)
        self._dismiss(hired.actor)
        self._looked = -math.inf  # somebody else is needed
        if not hired.ready:
            self._died_at_start += not hired.spare
            if self._died_at_start >= STARTS:
                raise UserError(
                    f"workers of the {self._stage.name} stage do not start ({_reason(error)}): "
                    "see that motive is installed on every machine, and that the model fits into memory"
                )
            return
        self._progress.say(f"{self._stage.name}: a worker died; what it had is given to others")
        if not any(h.ready for h in self._hired):
            self._waiting_since = time.monotonic()
        blocks = [block for _, block in hired.blocks]
        # It had begun the first. The others are as they were.
        self._again.extend(blocks[1:])
        begun = blocks[:1]
        for block in begun:
            # One by one, to find a row that no worker survives.
            alone = [_Block([row], block.deaths + (len(block.rows) == 1)) for row in block.rows]
            for single in alone:
                if single.deaths < DEATHS:
                    self._again.append(single)
                else:
                    yield self._given_up(single.rows[0], error)

    def _given_up(self, row: Row, error: Exception) -> Outcome:
        self._died_of_rows += 1
        if self._died_of_rows >= HOPELESS:
            raise UserError(
                f"the workers of the {self._stage.name} stage die of every clip ({_reason(error)}): "
                "see the cluster's logs; more memory, or a smaller --size, may help"
            )
        failure = Failure(row["key"], f"{DEATHS} workers died of it, one after the other")
        return Outcome([], None, [failure], [str(row.get("file_name", row["key"]))], (), 0.0)

    def _dismiss(self, actor: Any) -> None:
        with suppress(Exception):  # it is dead already
            self._ray.kill(actor)

    def _say_when_nobody_works(self) -> None:
        since = self._waiting_since
        if since is not None and time.monotonic() - since > 60:
            self._progress.say(
                f"{self._stage.name}: no worker has begun for a minute; the cluster may be busy, or the "
                "model is being loaded (ray status tells)"
            )
            self._waiting_since = None


def _send_code_along(ray: Any) -> None:
    """A private adapter is a file of the driver's: its code goes to the workers with the stage."""
    import sys

    for name, module in list(sys.modules.items()):
        if name.startswith("motive_adapter_"):
            with suppress(ValueError):
                ray.cloudpickle.register_pickle_by_value(module)


def _reason(error: Exception) -> str:
    """The line of Ray's long message that says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if "Error" in line or "exit detail" in line] or lines
    return (told[-1] if told else type(error).__name__)[:200]


def _bytes_of(row: Any) -> int:
    """About how large a row is."""
    if isinstance(row, dict):
        return sum(map(_bytes_of, row.values()))
    if isinstance(row, list | tuple):
        return sum(map(_bytes_of, row))
    return row.nbytes if isinstance(row, np.ndarray) else 64
