"""`motive check`: a damaged run is found out, mended, and ends as an undisturbed one."""

import json
import shutil
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import Terminal
from run_files import Finished, features, rows
from test_killed import assert_like_undisturbed


def check(motive: Terminal, run: Path, *words: str, code: int) -> dict[str, object]:
    outcome = motive("check", run, "--json", *words)
    assert outcome.code == code, outcome.out + outcome.err
    found = json.loads(outcome.out)
    assert found["sound"] == (code == 0)
    return found


def levels(found: dict[str, object]) -> list[tuple[str, str]]:
    findings = found["findings"]
    assert isinstance(findings, list)
    return [(f["level"], f["where"]) for f in findings if f["level"] != "remark"]


def data_file(run: Path, table: str) -> Path:
    return next((run / "tables" / f"{table}.lance" / "data").glob("*.lance"))


def test_a_finished_run_is_sound(motive: Terminal, finished: Finished) -> None:
    found = check(motive, finished.path, code=0)
    assert found["findings"] == []
    assert found["rows"]["features-512"] == len(features(finished.path))  # type: ignore[index]
    assert "the run is sound" in motive("check", finished.path).succeeded().out


@pytest.mark.parametrize(
    ("table", "damage"),
    [("features-512", "flip"), ("latents", "cut"), ("motion", "flip"), ("files", "cut")],
)
def test_a_damaged_fragment_is_mended_by_a_rerun(
    motive: Terminal, finished: Finished, copied: Path, table: str, damage: str
) -> None:
    file = data_file(copied, table)
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[len(content) // 3] ^= 4
    file.write_bytes(content[: len(content) // 2] if damage == "cut" else content)
    found = check(motive, copied, code=1)
    assert levels(found) == [("damage", f"{table}.lance")]
    found = check(motive, copied, "--mend", code=1)  # the rows are still to be made
    assert ("unfinished", f"{table}.lance") in levels(found)
    motive(*finished.words, "--out", copied).succeeded()
    check(motive, copied, code=0)
    assert_like_undisturbed(copied, finished.path)


def test_rows_that_are_there_twice_are_mended(
    motive: Terminal, finished: Finished, copied: Path
) -> None:
    path = copied / "tables" / "features-512.lance"
    lance.write_dataset(lance.dataset(str(path)).to_table().slice(0, 3), str(path), mode="append")
    assert levels(check(motive, copied, code=1)) == [("damage", path.name)] * 3
    check(motive, copied, "--mend", code=0)
    mine, theirs = features(copied), features(finished.path)
    assert len(rows(copied, "features")) == len(theirs)
    assert all(np.array_equal(mine[key], theirs[key]) for key in theirs)


def test_a_clip_that_is_done_and_failed_is_done(motive: Terminal, copied: Path) -> None:
    (row, *_) = rows(copied, "motion")
    failure = {"key": row["key"], "made_by": row["made_by"], "stage": "track", "reason": "x"}
    table = pa.Table.from_pylist([failure])
    lance.write_dataset(table, str(copied / "tables" / "failures.lance"))
    assert ("damage", "failures.lance") in levels(check(motive, copied, code=1))
    check(motive, copied, "--mend", code=0)
    check(motive, copied, code=0)


def test_outputs_that_were_changed_are_made_again(
    motive: Terminal, finished: Finished, copied: Path
) -> None:
    table = pq.read_table(copied / "scores.parquet")
    scores = table["score"].to_numpy().copy()
    scores[3] = np.nextafter(scores[3], np.float32(2))
    changed = table.set_column(2, "score", pa.array(scores, pa.float32()))
    pq.write_table(
        changed.replace_schema_metadata(table.schema.metadata), copied / "scores.parquet"
    )
    assert levels(check(motive, copied, code=1)) == [("damage", "scores.parquet")]
    check(motive, copied, "--mend", code=0)
    motive(*finished.words, "--out", copied).succeeded()
    assert_like_undisturbed(copied, finished.path)

    selection = copied / "selection.csv"
    selection.write_text(selection.read_text().replace("true", "false", 1))
    assert levels(check(motive, copied, code=1)) == [("damage", "selection.csv")]
    check(motive, copied, "--mend", code=0)
    motive(*finished.words, "--out", copied).succeeded()
    assert_like_undisturbed(copied, finished.path)


def test_what_is_missing_is_unfinished_and_says_how_to_go_on(
    motive: Terminal, copied: Path
) -> None:
    path = copied / "tables" / "features-512.lance"
    key = rows(copied, "features")[0]["key"]
    lance.dataset(str(path)).delete(f"key = '{key}'")
    outcome = motive("check", copied)
    assert outcome.code == 1
    assert "1 of " in outcome.out
    assert "motive run" in outcome.out
    motive("run", copied / "run.yaml", "--quiet").succeeded()
    check(motive, copied, code=0)


def test_a_model_that_changed_is_damage(
    motive: Terminal, small_wan: Path, finished: Finished, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(small_wan, tmp_path / "model"))
    run = tmp_path / "run"
    words = list(finished.words)
    words[words.index("--model") + 1] = str(model)
    motive(*words, "--out", run).succeeded()
    weights = model / "transformer" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    found = check(motive, run, code=1)
    assert ("damage", "run.yaml") in levels(found)


def test_no_run_is_a_users_mistake(motive: Terminal, tmp_path: Path) -> None:
    assert "holds no run" in motive("check", tmp_path).complaint
