"""`motive curate` over 95 real files, 15 of them broken or odd, with ten of them as queries."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from commands import Outcome, Terminal, in_python
from run_files import (
    clip_ids,
    done,
    duplicates,
    failures,
    scores,
    selection,
    snapshot,
    versions,
)

QUERIES = (
    "assets-for-api-docs__curve_bounce_out.mp4",
    "decord__video_90.mov",  # 3 frames: one for the model, so no motion
    "gymnasium__pendulum.gif",
    "interactive-examples__flower.webm",
    "io__gs-16b-2c-44100hz.mp4",  # audio only
    "kubric__simulator.gif",
    "mmcv__palette.gif",  # one frame
    "moviepy__fire2.mp4",
    "sample-videos__walk.mkv",
    "torchcodec__h264_10bits.mp4",
)
# What is wrong with the files of which nothing decodes (metadata.csv: frames is 0).
REASONS = {
    "io__gs-16b-2c-44100hz.mp4": "the file has no video stream",
    "lerobot__clip_4frames.mp4": "not a readable media file",
    "moviepy__result.webm": "the file is empty",
    "small__AudioVideoInterleave.avi": "no frame can be decoded",
}
AS_QUERY = "as a query: "


@dataclass(frozen=True)
class RealRun:
    path: Path
    words: tuple[str, ...]
    outcome: Outcome
    rows: dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def run(shared: Path, small_wan: Path, tmp_path_factory: pytest.TempPathFactory) -> RealRun:
    clips, folder = shared / "clips", tmp_path_factory.mktemp("real")
    with (clips / "metadata.csv").open(newline="") as file:
        rows = {row["file_name"]: row for row in csv.DictReader(file)}
    with (folder / "queries.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file_name", "text"))
        writer.writerows((name, rows[name]["text"]) for name in QUERIES)
    path = folder / "run"
    words = ["curate", "--clips", clips, "--queries", folder / "queries.csv"]
    words += ["--media-root", clips, "--model", small_wan, "--out", path]
    return RealRun(path, tuple(map(str, words)), in_python(words), rows)


def test_it_succeeds_and_says_what_it_did(run: RealRun) -> None:
    run.outcome.succeeded()
    assert "9 of 91 clips selected" in run.outcome.out
    assert "Traceback" not in run.outcome.err
    for stage in ("ingest", "track", "encode", "gradients"):
        assert f"{stage}: " in run.outcome.err
    assert duplicates(run.path) == {}


def test_every_file_is_ranked_or_has_failed_and_none_twice(run: RealRun) -> None:
    ranked = [row["file_name"] for row in selection(run.path)]
    failed = [
        row["file_name"] for row in failures(run.path) if not row["reason"].startswith(AS_QUERY)
    ]
    assert len(run.rows) == 95
    assert sorted(ranked + failed) == sorted(run.rows)


def test_reasons_are_true(run: RealRun) -> None:
    failed = {row["file_name"]: row for row in failures(run.path)}
    assert len(failed) == len(failures(run.path))
    undecodable = {name for name, row in run.rows.items() if row["frames"] == "0"}
    assert undecodable == REASONS.keys()
    for name in undecodable:
        assert failed[name]["stage"] == "ingest"
        assert failed[name]["reason"].startswith(REASONS[name])
    others = {name: row for name, row in failed.items() if name not in undecodable}
    # Queries of one frame have no motion, so they cannot vote; as clips they are ranked.
    assert others.keys() == {"decord__video_90.mov", "mmcv__palette.gif"}
    for row in others.values():
        assert (row["stage"], row["reason"]) == (
            "score",
            f"{AS_QUERY}it shows no motion, so its gradient is zero",
        )


def test_columns_of_the_outputs(run: RealRun) -> None:
    header = (run.path / "selection.csv").read_text().splitlines()[0]
    assert header == "rank,clip_id,file_name,caption,votes,mean_score,best_query,selected"
    assert (run.path / "failures.csv").read_text().splitlines()[0] == "file_name,stage,reason"
    assert pq.read_table(run.path / "scores.parquet").column_names == [
        "clip_id",
        "query_id",
        "score",
    ]
    assert (run.path / "report.html").stat().st_size > 100_000
    record = yaml.safe_load((run.path / "run.yaml").read_text())
    assert {"versions", "revision", "model", "objective", "config"} <= record.keys()
    assert record["model"]["fingerprint"] == record["objective"]["model"]


def test_captions_are_those_of_the_metadata(run: RealRun) -> None:
    for row in selection(run.path):
        assert row["caption"] == run.rows[row["file_name"]]["text"]


def test_the_order_follows_from_the_scores(run: RealRun) -> None:
    """Votes, means, best queries, ranks and the selected tenth, worked out anew from the scores."""
    found, ids = scores(run.path), clip_ids(run.path, "clip")
    names = {clip_id: name for name, clip_id in clip_ids(run.path, "query").items()}
    query_ids = list(dict.fromkeys(query for query, _ in found))
    assert sorted(names[q] for q in query_ids) == sorted(
        set(QUERIES) - {row["file_name"] for row in failures(run.path)}
    )
    order = sorted(ids.values())
    by_query = {q: np.array([found[q, c] for c in order], np.float32) for q in query_ids}
    votes = np.sum([s > np.float32(np.percentile(s, 90)) for s in by_query.values()], axis=0)
    table = {
        c: (int(votes[i]), float(np.mean([s[i] for s in by_query.values()], dtype=np.float64)))
        for i, c in enumerate(order)
    }
    rows = selection(run.path)
    assert [int(row["rank"]) for row in rows] == list(range(1, 92))
    assert [row["clip_id"] for row in rows] == sorted(
        order, key=lambda c: (-table[c][0], -table[c][1], c)
    )
    for row in rows:
        assert ids[row["file_name"]] == row["clip_id"]
        assert int(row["votes"]) == table[row["clip_id"]][0]
        assert float(row["mean_score"]) == pytest.approx(table[row["clip_id"]][1], abs=1e-7)
        mine = [found[query, row["clip_id"]] for query in query_ids]
        assert row["best_query"] == names[query_ids[int(np.argmax(mine))]]
    assert [row["selected"] for row in rows] == ["true"] * 9 + ["false"] * 82


def test_a_clip_is_its_own_best_match(run: RealRun) -> None:
    """A file that is clip and query, with the same caption, has the same feature in both roles."""
    found, clips = scores(run.path), clip_ids(run.path, "clip")
    for name, query_id in clip_ids(run.path, "query").items():
        if (query_id, clips[name]) in found:
            assert found[query_id, clips[name]] == pytest.approx(1, abs=1e-6)


def test_a_second_run_computes_nothing(run: RealRun, motive: Terminal) -> None:
    before = done(run.path), versions(run.path)
    files = snapshot(run.path)
    motive(*run.words).succeeded()
    assert (done(run.path), versions(run.path)) == before
    after = snapshot(run.path)
    assert files is not None
    assert after is not None
    changed = {name for name in files | after if files.get(name) != after.get(name)}
    # The log of seconds and the record of the last start; no table, no output.
    assert changed <= {"stages.json", "run.yaml"}


def test_info_says_the_same(run: RealRun, motive: Terminal) -> None:
    facts = json.loads(motive("info", run.path, "--json").succeeded().out)
    assert (facts["clips"], facts["clips_ranked"], facts["queries"]) == (95, 91, 10)
    assert facts["selected"] == 9
    assert facts["failures"] == failures(run.path)
    for stage in ("ingest", "track", "encode", "gradients"):
        assert facts["stages"][stage]["peak_mb"] > 0
        assert facts["stages"][stage]["seconds"] > 0
