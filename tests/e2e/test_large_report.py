"""The report of a run with more clips than one page holds."""

import json
import re
from pathlib import Path

import pytest

from motive.pipeline import Run
from motive.web import run_report


def test_it_holds_the_best_and_a_sample_and_counts_every_clip(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.open(copied)
    run.report()
    whole = (copied / "report.html").read_text()
    # Of each query's clips only the very best and worst are wanted, else these few clips all were.
    monkeypatch.setattr(run_report, "HELD", 4)
    monkeypatch.setattr(run_report, "SHOWN", (1, 1))
    run.report()
    part = (copied / "report.html").read_text()
    assert "This page holds" in part
    assert "This page holds" not in whole
    headings = [re.findall(r"<h1>.*?</h1>", page) for page in (part, whole)]
    assert headings[0] == headings[1] != []
    for said in (r"votes for (\d+ of \d+)", r"a rank correlation of (\S+)"):
        assert re.findall(said, part) == re.findall(said, whole) != []
    every, held = _clips(whole), _clips(part)
    assert 4 <= len(held) < len(every) == len(run.selection())
    ranks = [clip["rank"] for clip in held]
    assert {1, 2, len(every)} <= set(ranks)
    by_file = {clip["file"]: clip for clip in every}
    for clip in held:
        same = by_file[clip["file"]]
        assert [clip[k] for k in ("rank", "votes", "mean", "note")] == [
            same[k] for k in ("rank", "votes", "mean", "note")
        ]


def _clips(page: str) -> list[dict[str, object]]:
    found = re.search(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])["clips"]
