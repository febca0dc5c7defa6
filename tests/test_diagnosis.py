"""Polarity and diagnosis: what unwanted queries do to a selection, and which clips are suspected."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from motive import Run, UserError
from motive.diagnosis import COLUMNS, as_json, diagnose, write_diagnosis
from motive.influence.selection import rank_clips
from motive.results import SELECTION_COLUMNS, open_scores
from motive.runs.members import Members
from motive.subsets import choose_subset, write_subset
from motive.terminal import print_diagnosis
from motive.zoo.render import write_mp4

UNWANTED = ("clips/000002.mp4", "clips/000006.mp4")
WANTED = ("clips/000001.mp4", "clips/000007.mp4")
STILL = "still.mp4"


@pytest.fixture(scope="module")
def data(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(zoo, tmp_path_factory.mktemp("diagnosis") / "data"))


def write_queries(data: Path, polarities: dict[str, str | None]) -> None:
    """None: the table has no column of that name."""
    columns = ["file_name", "caption"]
    columns += ["polarity"] if any(p is not None for p in polarities.values()) else []
    with (data / "queries.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        for name, polarity in polarities.items():
            writer.writerow({"file_name": name, "caption": "a shape", "polarity": polarity})


@pytest.fixture(scope="module")
def finished(data: Path, small_wan: Path) -> Path:
    """The directory of a run with two wanted and two unwanted queries. Not to be written into.

    There is a third unwanted one, in which nothing moves.
    """
    write_mp4(data / STILL, np.full((9, 32, 32, 3), 128, np.uint8), 16)
    unwanted = dict.fromkeys((*UNWANTED, STILL), "unwanted")
    write_queries(data, {**dict.fromkeys(WANTED, ""), **unwanted})
    run = Run.create(
        data.parent / "run",
        clips=str(data / "metadata.csv"),
        queries=str(data / "queries.csv"),
        model=str(small_wan),
        selection__fraction=0.3,
        selection__percentile=70.0,
    )
    run.curate()
    return run.path


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Run:
    return Run.open(shutil.copytree(finished, tmp_path / "run"))


def score_rows(run: Run) -> tuple[dict[str, np.ndarray], list[str]]:
    """Scores of all clips by the query's file name, and the clips' ids."""
    scores = open_scores(run)
    names = {m.clip_id: m.file_name for m in run.members if m.role == "query"}
    rows = {names[q]: row for q, row in zip(scores.query_ids, scores.rows(), strict=True)}
    return rows, scores.clip_ids


def test_votes_of_unwanted_queries_are_taken_away(run: Run) -> None:
    scores, clip_ids = score_rows(run)
    votes = {name: row > np.percentile(row, 70) for name, row in scores.items()}
    gained = np.sum([votes[n] for n in WANTED], 0)
    lost = np.sum([votes[n] for n in UNWANTED], 0)
    mean = sum((-1.0 if n in UNWANTED else 1.0) * s.astype(float) for n, s in scores.items()) / 4
    order = np.lexsort((clip_ids, -mean, lost - gained))
    rows = run.selection()
    assert lost.any()
    assert [r["clip_id"] for r in rows] == [clip_ids[i] for i in order]
    for row, i in zip(rows, order, strict=True):
        assert int(row["votes"]) == gained[i] - lost[i]
        assert (int(row["votes_for"]), int(row["votes_against"])) == (gained[i], lost[i])
        assert float(row["mean_score"]) == pytest.approx(mean[i], abs=1e-7)
        assert row["best_query"] == max(WANTED, key=lambda n: scores[n][i])


def test_without_unwanted_queries_nothing_changes(run: Run, data: Path) -> None:
    write_queries(data, dict.fromkeys((*WANTED, *UNWANTED)))
    try:
        other = Run.create_from(run.config, run.path)
        other.curate(report=False)
    finally:
        write_queries(data, {**dict.fromkeys(WANTED, ""), **dict.fromkeys(UNWANTED, "unwanted")})
    assert tuple(other.selection()[0]) == SELECTION_COLUMNS
    scores, clip_ids = score_rows(other)
    plain = rank_clips(np.stack(list(scores.values())), clip_ids, fraction=0.3, percentile=70.0)
    assert [r["clip_id"] for r in other.selection()] == [clip_ids[i] for i in plain.order]
    assert not plain.votes_against.any()


def test_another_polarity_is_refused_before_anything_is_written(
    data: Path, small_wan: Path, tmp_path: Path
) -> None:
    before = (data / "queries.csv").read_text()
    write_queries(data, {WANTED[0]: "Unwanted"})
    try:
        with pytest.raises(
            UserError, match="has the polarity 'Unwanted': write wanted or unwanted"
        ):
            Run.create(
                tmp_path / "run",
                clips=str(data / "metadata.csv"),
                queries=str(data / "queries.csv"),
                model=str(small_wan),
            )
    finally:
        (data / "queries.csv").write_text(before)
    assert not (tmp_path / "run").exists()


def test_the_report_tells_votes_for_from_votes_against(run: Run) -> None:
    page = (run.path / "report.html").read_text()
    assert page.count("unwanted: votes against") == 2
    assert page.count("px/frame · votes for") == 2
    assert "votes for and" in page
    assert '"unwanted":true' in page


def test_suspects_are_by_mean_score_of_the_unwanted(run: Run) -> None:
    scores, clip_ids = score_rows(run)
    found = diagnose(run)
    assert {m.file_name for m in found.queries} == set(UNWANTED)
    mean = np.mean([scores[n].astype(float) for n in UNWANTED], axis=0)
    wanted = np.mean([scores[n].astype(float) for n in WANTED], axis=0)
    middle = np.median(mean)
    deviation = 1.4826 * np.median(np.abs(mean - middle))
    assert [s.rank for s in found.suspects] == list(range(1, 15))
    assert sorted(s.score for s in found.suspects)[::-1] == [s.score for s in found.suspects]
    for suspect in found.suspects:
        i = clip_ids.index(suspect.clip_id)
        assert suspect.score == pytest.approx(mean[i], abs=1e-12)
        assert suspect.percentile == pytest.approx(100 * np.mean(mean < mean[i]))
        assert suspect.robust_z == pytest.approx((mean[i] - middle) / deviation)
        assert suspect.wanted_score == pytest.approx(wanted[i], abs=1e-12)
        assert suspect.motion == pytest.approx(
            {k: float(run.motion()[suspect.clip_id][k]) for k in suspect.motion}
        )


def test_one_query_by_its_name_or_its_id(run: Run) -> None:
    by_name = diagnose(run, [UNWANTED[0]])
    assert by_name.suspects[0].file_name == UNWANTED[0]  # the query is one of the clips
    assert diagnose(run, [by_name.queries[0].clip_id]) == by_name
    path = write_diagnosis(run, by_name)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert path == run.path / "diagnosis.csv"
    assert tuple(rows[0]) == COLUMNS
    assert [r["clip_id"] for r in rows] == [s.clip_id for s in by_name.suspects]
    assert {r["queries"] for r in rows} == {json.dumps([UNWANTED[0]])}


def test_an_unwanted_query_that_shows_no_motion_is_left_out_and_named(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    found = diagnose(run)
    assert found.suspects == diagnose(run, UNWANTED).suspects
    ((member, reason),) = found.left_out
    assert (member.file_name, reason) == (STILL, "it shows no motion, so its gradient is zero")
    path = write_diagnosis(run, found)
    print_diagnosis(found, path)
    assert f"{STILL} was left out: {reason}\n" in capsys.readouterr().out
    with path.open(newline="") as file:
        named = {row["queries"] for row in csv.DictReader(file)}
    assert named == {json.dumps([m.file_name for m in found.queries])}
    assert set(json.loads(named.pop())) == set(UNWANTED)
    assert [q["file_name"] for q in json.loads(as_json(found))["left_out"]] == [STILL]


def test_a_query_without_motion_is_refused_when_it_is_named_or_the_last(run: Run) -> None:
    refused = rf"{STILL} has no scores \(it shows no motion, so its gradient is zero\): use another"
    with pytest.raises(UserError, match=refused):
        diagnose(run, [UNWANTED[0], STILL])
    run.__dict__["members"] = Members.of(m for m in run.members if m.file_name not in UNWANTED)
    with pytest.raises(UserError, match=refused):
        diagnose(run)


@pytest.mark.parametrize(("bounded", "text"), [(True, "+0.0000"), (False, "+3.21e-06")])
def test_tiny_scores_without_bounds_are_told_apart(
    run: Run, capsys: pytest.CaptureFixture[str], bounded: bool, text: str
) -> None:
    found = diagnose(run)
    tiny = replace(found.suspects[0], score=3.2061e-6)
    print_diagnosis(replace(found, suspects=(tiny,), bounded=bounded), run.path / "diagnosis.csv")
    assert text in capsys.readouterr().out


def test_what_is_kept_is_a_subset_to_train_on(run: Run, tmp_path: Path) -> None:
    found = diagnose(run)
    write_subset(run, found.kept(3), tmp_path / "kept.csv")
    kept = choose_subset(run, str(tmp_path / "kept.csv"))
    assert set(kept.clip_ids) == {s.clip_id for s in found.suspects[3:]}
    assert kept.clip_ids[0] == found.suspects[-1].clip_id
    assert len(found.kept(0).clip_ids) == 14
    for wrong in (-1, 14):
        with pytest.raises(UserError, match="use a number from 0 to 13"):
            found.kept(wrong)


def test_refusals(run: Run) -> None:
    with pytest.raises(UserError, match=r"'nothing\.mp4' is no query of"):
        diagnose(run, ["nothing.mp4"])
    members = [m for m in run.members if m.role == "query"]
    assert json.loads(members[0].extra) == {"polarity": ""}
    run.__dict__["members"] = Members.of(
        m for m in run.members if not (m.role == "query" and m.unwanted)
    )
    with pytest.raises(UserError, match="no query of the run is unwanted: name one with --query"):
        diagnose(run)
    (run.path / "scores.parquet").unlink()
    with pytest.raises(UserError, match="motive score"):
        diagnose(run, [WANTED[0]])


def test_a_narrow_terminal_still_shows_the_numbers(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    found = diagnose(run)
    print_diagnosis(found, run.path / "diagnosis.csv")
    told = capsys.readouterr().out
    for suspect in found.suspects[:12]:
        assert f"{suspect.score:+.4f}" in told
        assert f"{suspect.robust_z:+.1f}" in told
