"""What runs in a worker of the Ray engine: a stage, opened once, given block after block of rows."""

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

from motive.runs.engine import outcomes
from motive.runs.ray_cluster import Surroundings
from motive.runs.stage import Failure, Stage
from motive.runs.tables import Row, Table, Written

# From this size on, a block's results are written where they were computed, and only what Lance must know
# of the file goes to the driver. Smaller ones are gathered there, so that a table gets few fragments.
FRAGMENT_BYTES = 4 * 2**20


@dataclass(frozen=True)
class Outcome:
    """What became of a block of rows.

    rows: results that the driver is to write; empty when they are written.
    written: results that are written already, not yet part of the table.
    names: of the rows, in the order in which they were done.
    seconds: that the block took.
    """

    rows: list[Row]
    written: Written | None
    failures: list[Failure]
    names: list[str]
    notes: tuple[str, ...]
    seconds: float


class Worker:
    """Made by Ray as an actor. `open`, then `work` as often as there are blocks, then `close`.

    After that it may open another stage: what it has imported is there already.
    """

    def open(self, stage: Stage, results: Table, expected: Surroundings) -> None:
        """Load what the stage needs.

        Raises UserError when this machine would not compute what the driver's would.
        """
        expected.require(socket.gethostname())
        self.stage, self.results = stage, results
        stage.open()

    def work(self, rows: Sequence[Row]) -> Outcome:
        """Put the rows through the stage."""
        start = time.monotonic()
        done: list[Row] = []
        failures: list[Failure] = []
        names: list[str] = []
        for row, outcome in outcomes(self.stage, rows):
            names.append(str(row.get("file_name", row["key"])))
            if isinstance(outcome, Failure):
                failures.append(outcome)
            else:
                done.append(outcome)
        written = self.results.write_aside(done, at_least=FRAGMENT_BYTES)
        return Outcome(
            [] if written else done,
            written,
            failures,
            names,
            tuple(self.stage.notes),
            time.monotonic() - start,
        )

    def close(self) -> None:
        """Let go of what the stage loaded."""
        self.stage.close()
