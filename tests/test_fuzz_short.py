"""A few hundred broken files through ingest and track, by the campaign that runs ten thousand."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import fuzz

CASES = 300


@pytest.fixture(scope="module")
def found(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    work = tmp_path_factory.mktemp("fuzz")
    found = fuzz.campaign(shared / "clips", work, CASES, seed=5, say=lambda line: None)
    # What is there is not run again.
    assert fuzz.campaign(shared / "clips", work, CASES, seed=5, say=lambda line: None) == found
    return found


def test_no_file_ends_a_run(found: dict[str, object]) -> None:
    assert found["cases"] == CASES
    assert (found["parent_crashes"], found["parent_hangs"]) == (0, 0)


def test_every_file_is_done_or_has_a_reason(found: dict[str, object]) -> None:
    outcomes = found["outcomes"]
    assert isinstance(outcomes, dict)
    assert sum(outcomes.values()) == CASES
    assert outcomes.keys() <= {"ok", "ingest", "track", "refused"}
    assert min(outcomes["ok"], outcomes["ingest"], outcomes["refused"]) > 20
    # Anything that is named by a Python class is an error that nobody foresaw.
    assert not [reason for reason in found["reasons"] if "Error: " in reason]  # type: ignore[attr-defined]


def test_cases_depend_on_the_seed_alone(shared: Path, tmp_path: Path) -> None:
    import random

    bases = fuzz.media_bases(shared / "clips", tmp_path)
    cases = [fuzz.mutate(bases, random.Random(f"5 {n}")) for n in range(50)]
    assert cases == [fuzz.mutate(bases, random.Random(f"5 {n}")) for n in range(50)]
    assert len({kind for kind, _, _ in cases}) > 8


def test_without_clips_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds no clips"):
        fuzz.campaign(tmp_path, tmp_path / "work", 1, seed=0)


def test_the_summary_counts_what_went_wrong() -> None:
    case = {"number": 0, "kind": "truncate", "base": "a", "stage": "ingest"}
    batches = [
        {"first": 0, "count": 1, "cases": [{**case, "reason": "the decoder crashed (signal 11)"}]},
        {"first": 1, "count": 1, "parent": "crash, exit code -11"},
        {"first": 2, "count": 1, "parent": "hang"},
    ]
    found = fuzz.summary(json.loads(json.dumps(batches)), 0)
    assert (found["decoder_crashes"], found["parent_crashes"], found["parent_hangs"]) == (1, 1, 1)
