"""The report: the paper's table from its own counts, exclusions, and what is written."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from study_parts import clustered_answers, judgements_of

from motive.errors import UserError
from motive.study.analysis import analyse
from motive.study.collected import import_judgements
from motive.study.design import Design, Pair, Rules, parse_design
from motive.study.judgements import COLUMNS, CheckResult, Judgement, judgement_rows
from motive.study.report import as_json, report_study, report_text

# Human study of the paper, 17 annotators on 50 videos: Motive's wins and ties of 850 judgements, and the
# printed shares of win, tie and loss. No whole numbers of 850 give all printed digits (74.1, 12.3, 13.6 is
# 630, 104.5, 115.5), so that shares agree to a tenth of a percent.
PAPER = {
    "base": (630, 104, (74.1, 12.3, 13.6)),
    "random": (501, 103, (58.9, 12.1, 29.0)),
    "full": (451, 126, (53.1, 14.8, 32.1)),
    "unmasked": (399, 170, (46.9, 20.0, 33.1)),
}


def design_for(judgements: list[Judgement], annotators: int = 17) -> Design:
    keys = dict.fromkeys((j.prompt, j.seed, j.arm_a, j.arm_b) for j in judgements)
    arms = dict.fromkeys(name for key in keys for name in (key[3], key[2]))
    return Design(
        id="study",
        arms=dict.fromkeys(arms, ""),
        rules=Rules(per_pair=annotators),
        pairs=tuple(
            Pair(id=str(i), prompt=p, seed=s, arm_a=a, arm_b=b)
            for i, (p, s, a, b) in enumerate(keys)
        ),
        annotators=tuple(f"annotator {k}" for k in range(annotators)),
    )


def paper_counts(wins: int, ties: int) -> list[Judgement]:
    values = np.repeat([1.0, 0.5, 0.0], [wins, ties, 850 - wins - ties])
    np.random.default_rng(0).shuffle(values)
    annotators, videos = (index.ravel() for index in np.indices((17, 50)))
    return judgements_of(values, annotators, videos)


def test_the_papers_counts_give_its_table() -> None:
    found = paper_counts(630, 104)
    analysis = analyse(design_for(found), found, {})
    (row,) = analysis.comparisons
    assert (row.annotators, row.videos, row.judgements) == (17, 50, 850)
    assert (row.wins, row.ties, row.losses) == (630, 104, 116)
    shares = [100 * share.value for share in (row.win, row.tie, row.loss)]
    assert shares == pytest.approx(PAPER["base"][2], abs=0.1)
    assert row.win.value + row.tie.value + row.loss.value == pytest.approx(1)
    assert row.preference.value == pytest.approx((630 + 52) / 850)
    assert row.win.low < 0.741 < row.win.high
    assert row.p < 1e-6
    text = report_text(analysis)
    assert "850 judgements of 850 planned, 17 annotators" in text
    assert "motive against base" in text
    assert "74.1 (" in text


def test_four_tables_of_the_paper_and_a_ranking_of_five_arms() -> None:
    found = [
        Judgement(j.annotator, j.prompt, 0, "motive", arm, j.winner)
        for arm, (wins, ties, _) in PAPER.items()
        for j in paper_counts(wins, ties)
    ]
    analysis = analyse(design_for(found), found, {})
    for row in analysis.comparisons:
        shares = [100 * share.value for share in (row.win, row.tie, row.loss)]
        assert shares == pytest.approx(PAPER[row.arm_b][2], abs=0.1)
    assert [one.arm for one in analysis.ranking] == ["motive", "unmasked", "full", "random", "base"]
    adjusted = [row.p_holm for row in analysis.comparisons]
    assert all(
        p <= q for p, q in zip((row.p for row in analysis.comparisons), adjusted, strict=True)
    )


def test_annotators_who_fail_their_checks_are_not_counted() -> None:
    rng = np.random.default_rng(1)
    found = judgements_of(*clustered_answers(rng, 6, 20, by_annotator=0.3, by_video=0.3, shift=0.5))
    checks = {
        "annotator 0": CheckResult(3, 5),
        "annotator 1": CheckResult(4, 5),
        "annotator 2": CheckResult(0, 0),
    }
    analysis = analyse(design_for(found), found, checks, exclude={"annotator 5": "a colleague"})
    assert [(one.annotator, one.judgements) for one in analysis.excluded] == [
        ("annotator 0", 20),
        ("annotator 5", 20),
    ]
    assert analysis.excluded[0].reason == "3 of 5 attention checks right, fewer than 80%"
    assert analysis.excluded[1].reason == "a colleague"
    assert (analysis.annotators, analysis.judgements) == (4, 80)
    without = [j for j in found if j.annotator not in ("annotator 0", "annotator 5")]
    again = analyse(design_for(found), without, {})
    assert as_json(again)["comparisons"] == as_json(analysis)["comparisons"]
    assert "annotator 0 (20 judgements): 3 of 5" in report_text(analysis)


def test_videos_of_one_prompt_are_one_cluster() -> None:
    rng = np.random.default_rng(2)
    values, annotators, videos = clustered_answers(
        rng, 8, 20, by_annotator=0.3, by_video=0.6, shift=0.5
    )
    winners = [j.winner for j in judgements_of(values, annotators, videos)]
    found = [
        Judgement(f"annotator {a}", f"prompt {v // 4}", int(v % 4), "motive", "base", winner)
        for a, v, winner in zip(annotators, videos, winners, strict=True)
    ]
    assert analyse(design_for(found), found, {}).comparisons[0].videos == 5
    one_prompt = [Judgement(j.annotator, "all", int(v), "motive", "base", j.winner)
                  for j, v in zip(found, videos, strict=True)]  # fmt: skip
    assert analyse(design_for(one_prompt), one_prompt, {}).comparisons[0].videos == 20


def test_a_favoured_side_shows() -> None:
    found = [
        Judgement(
            f"annotator {k % 5}", f"prompt {k % 7}", 0, "motive", "base", "a" if left else "b", left
        )
        for k, left in enumerate([True, False] * 40)
    ]
    found = list({(j.annotator, j.prompt): j for j in found}.values())
    (row,) = analyse(design_for(found), found, {}).comparisons
    assert row.left_share == 1
    assert "the left video was preferred in 100.0%" in report_text(
        analyse(design_for(found), found, {})
    )


def test_files_hold_what_the_report_says(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    found = [
        j
        for arms, shift in ((("b", "a"), 0.5), (("c", "a"), 0.2), (("c", "b"), -0.4))
        for j in judgements_of(
            *clustered_answers(rng, 5, 12, by_annotator=0.2, by_video=0.4, shift=shift), arms
        )
    ]
    file, study, out = tmp_path / "found.csv", tmp_path / "study", tmp_path / "out"
    write_csv(file, found)
    assert import_judgements(file, study) == (180, 0)
    analysis = report_study(study, out=out)
    content = json.loads((out / "report.json").read_text())
    with (out / "report.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    assert [(row["arm_a"], row["arm_b"]) for row in rows] == [("b", "a"), ("c", "a"), ("c", "b")]
    for row, entry, comparison in zip(
        rows, content["comparisons"], analysis.comparisons, strict=True
    ):
        assert float(row["win"]) == pytest.approx(entry["win"]["value"], rel=1e-5)
        assert int(row["wins"]) == entry["wins"] == comparison.wins
        assert float(row["p_holm"]) >= float(row["p"])
    with (out / "ranking.csv").open(newline="") as table:
        assert [row["arm"] for row in csv.DictReader(table)] == [s.arm for s in analysis.ranking]
    # What is written can be brought in again, and says the same.
    assert import_judgements(out / "judgements.csv", tmp_path / "again") == (180, 0)
    again = report_study(tmp_path / "again")
    assert [c.win for c in again.comparisons] == [c.win for c in analysis.comparisons]


def test_one_annotator_gives_a_table_without_intervals(tmp_path: Path) -> None:
    found = judgements_of(np.array([1.0, 0.5, 0]), np.zeros(3, int), np.arange(3))
    write_csv(tmp_path / "found.csv", found)
    import_judgements(tmp_path / "found.csv", tmp_path / "study")
    text = report_text(report_study(tmp_path / "study"))
    assert "p = unknown" in text
    content = json.loads((tmp_path / "study" / "report.json").read_text())
    assert content["comparisons"][0]["win"]["low"] is None


def test_a_study_that_has_a_seed_below_0_is_reported(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    found = judgements_of(*clustered_answers(rng, 4, 6, by_annotator=0.2, by_video=0.2, shift=0.5))
    design = design_for(found)
    rules = design.rules.model_copy(update={"seed": -1})
    path = tmp_path / "study.json"
    design.model_copy(update={"rules": rules}).write(path)
    (row,) = analyse(parse_design(path), found, {}).comparisons
    assert 0 <= row.bootstrap[0] <= row.bootstrap[1] <= 1


def test_nobody_of_that_name_is_refused(tmp_path: Path) -> None:
    write_csv(tmp_path / "found.csv", judgements_of(np.ones(1), np.zeros(1, int), np.zeros(1, int)))
    import_judgements(tmp_path / "found.csv", tmp_path / "study")
    with pytest.raises(UserError, match="nobody of that name"):
        report_study(tmp_path / "study", exclude={"zoe": "late"})


def write_csv(path: Path, found: list[Judgement]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(judgement_rows(found))
