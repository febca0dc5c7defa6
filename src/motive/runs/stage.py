"""A stage: typed rows in, typed rows out. It knows nothing of engines or tables."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from motive.errors import ClipError, UserError
from motive.runs.tables import Row


@dataclass(frozen=True)
class Failure:
    """One row that a stage could not do, and why."""

    key: str
    reason: str


@dataclass(frozen=True)
class Resources:
    """What one worker of a stage takes of a cluster's machine.

    device: of a stage with a network, as `--device` names it; empty for one that needs no GPU anywhere.
    cpus: cores that it keeps busy; None for all of a machine's, of a stage with processes of its own.
    """

    device: str = ""
    cpus: int | None = 1


class Stage(ABC):
    """Work on one clip after another, each independent of the others.

    Made where the run is steered, opened once in each worker (that is when models load), then called
    with batches of rows. Every row has `key`; the result rows carry the same keys.
    """

    name: ClassVar[str]
    table: str  # where its rows go
    schema: pa.Schema
    notes: Sequence[str] = ()  # what a user should know of how the rows were computed

    @property
    def resources(self) -> Resources:
        """What a worker takes."""
        return Resources()

    @property
    def places(self) -> list[Path]:
        """Files and folders, besides those that rows name, that a worker reads."""
        return []

    @abstractmethod
    def fingerprint(self) -> str:
        """Equal for stages that give equal rows."""

    def open(self) -> None:  # noqa: B027  (most stages have nothing to load)
        """Load what the worker needs."""

    def close(self) -> None:  # noqa: B027
        """Let go of what `open` loaded."""

    @property
    def prepares(self) -> int:
        """How many rows `prepare` may be at work on at once, each in a thread."""
        return 1

    def prepare(self, row: Row) -> Row:
        """The part that may run ahead in another thread (decoding); the default does nothing."""
        return row

    @abstractmethod
    def process(self, row: Row) -> Row:
        """The result for one prepared row. Raises ClipError with the reason when there is none."""

    def batch_of(self, row: Row) -> tuple[Hashable, int]:
        """What the prepared rows of one batch must have in common, and how many it may have at most.

        The default is no batches. Asked after `open`.
        """
        return None, 1

    def process_batch(self, rows: list[Row]) -> list[Row | Exception]:
        """`process` for each of several prepared rows, with the error in place of a bad row's result.

        For stages that have a faster way for rows of one `batch_of`. A row's result must not depend on
        the others.
        """
        raise NotImplementedError

    def __call__(self, rows: list[Row]) -> list[Row | Failure]:
        """Results in the order of `rows`, a Failure where a clip could not be done."""
        return [self.attempt(row) for row in rows]

    def attempt(self, row: Row, prepared: Row | Exception | None = None) -> Row | Failure:
        """One row; every error that is about this row alone becomes a Failure."""
        try:
            if isinstance(prepared, Exception):
                raise prepared
            result = self.process(self.prepare(row) if prepared is None else prepared)
        except ClipError as error:
            return Failure(row["key"], str(error))
        except (
            RuntimeError,
            ValueError,
            ArithmeticError,
            LookupError,
            TypeError,
            MemoryError,
        ) as error:
            if _out_of_memory(error):
                # Not the clip's fault: on a larger machine, or alone, it may well go through.
                raise UserError(
                    f"the {self.name} stage ran out of memory: close other programs, or use fewer "
                    "--frames or a smaller --size; what was done is kept"
                ) from None
            # A bug or a clip that trips a library: the run goes on, and the row says what happened.
            text = str(error).strip().splitlines()
            return Failure(row["key"], f"{type(error).__name__}: {text[0] if text else ''}"[:300])
        return self._complete(row, result)

    def attempt_batch(self, batch: Sequence[tuple[Row, Row | Exception]]) -> list[Row | Failure]:
        """`attempt` for rows with their prepared forms, all of one `batch_of`."""
        prepared = [row for _, row in batch if not isinstance(row, Exception)]
        if len(prepared) < 2:
            return [self.attempt(row, ready) for row, ready in batch]
        results = iter(self.process_batch(prepared))
        outcomes: list[Row | Failure] = []
        for row, ready in batch:
            result = ready if isinstance(ready, Exception) else next(results)
            if isinstance(result, Exception):
                outcomes.append(self.attempt(row, result))
            else:
                outcomes.append(self._complete(row, result))
        return outcomes

    def _complete(self, row: Row, result: Row) -> Row:
        return {"key": row["key"], "made_by": self.fingerprint(), **result}


def _out_of_memory(error: Exception) -> bool:
    """torch's own error on CUDA, a plain RuntimeError on the CPU."""
    text = str(error).lower()
    return (
        isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text
    )
