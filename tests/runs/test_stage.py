"""What becomes of one row: a result, or a failure when the fault is its own."""

from typing import Any

import pyarrow as pa
import pytest

from motive.errors import ClipError, UserError
from motive.runs.stage import Failure, Stage
from motive.runs.tables import Row


class Doubling(Stage):
    """Doubles `number`; raises what it is given instead."""

    name, table, schema = "double", "doubles", pa.schema([("twice", pa.int64())])

    def fingerprint(self) -> str:
        return "doubling"

    def prepare(self, row: Row) -> Row:
        if isinstance(row.get("early"), Exception):
            raise row["early"]
        return {**row, "prepared": True}

    def process(self, row: Row) -> Row:
        assert row["prepared"]
        if isinstance(row["number"], BaseException):
            raise row["number"]
        return {"twice": 2 * row["number"]}


def test_a_batch_keeps_its_order_and_its_keys() -> None:
    rows = [
        {"key": "a", "number": 1},
        {"key": "b", "number": ClipError("no")},
        {"key": "c", "number": 3},
    ]
    assert Doubling()(rows) == [
        {"key": "a", "made_by": "doubling", "twice": 2},
        Failure("b", "no"),
        {"key": "c", "made_by": "doubling", "twice": 6},
    ]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ClipError("too short"), "too short"),
        (RuntimeError("bad shape\n  at line 3"), "RuntimeError: bad shape"),
        (ValueError(), "ValueError: "),
        (KeyError("frames"), "KeyError: 'frames'"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (TypeError("x" * 1000), "TypeError: " + "x" * 289),
    ],
)
@pytest.mark.parametrize("where", ["number", "early"])
def test_a_rows_own_error_is_its_failure(error: Exception, reason: str, where: str) -> None:
    row = {"key": "a", "number": 1, where: error}
    assert Doubling().attempt(row) == Failure("a", reason)


@pytest.mark.parametrize(
    "error", [UserError("disk full"), OSError("device gone"), KeyboardInterrupt()]
)
def test_what_is_not_about_the_row_goes_up(error: BaseException) -> None:
    with pytest.raises(type(error)):
        Doubling().attempt({"key": "a", "number": error})


def test_a_prepared_row_or_its_error_is_taken_as_it_is() -> None:
    prepared: Row = {"key": "a", "number": 5, "prepared": True}
    assert Doubling().attempt({"key": "a", "number": 1}, prepared) == {
        "key": "a", "made_by": "doubling", "twice": 10,
    }  # fmt: skip
    assert Doubling().attempt({"key": "a", "number": 1}, ClipError("no")) == Failure("a", "no")
    with pytest.raises(UserError):
        Doubling().attempt({"key": "a", "number": 1}, UserError("full"))


def test_a_stage_must_say_what_it_is_and_does() -> None:
    class Half(Stage):
        name, table, schema = "half", "halves", pa.schema([])

    half: Any = Half
    with pytest.raises(TypeError, match="abstract"):
        half()


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_a_full_memory_is_not_the_clips_fault(error: Exception) -> None:
    with pytest.raises(UserError, match="ran out of memory"):
        Doubling().attempt({"key": "a", "number": error})
