"""From judgements to what a study says: the paper's table, with intervals, tests, and a ranking."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from motive.study.agreement import krippendorff_alpha
from motive.study.clustered import (
    Share,
    holm,
    pigeonhole_interval,
    share_of,
    test_against_half,
)
from motive.study.design import Design
from motive.study.judgements import CheckResult, Judgement
from motive.study.power import Planned, detectable, planned_power, power_of_t_test
from motive.study.ranking import Strength, bradley_terry

_VALUE = {"a": 1.0, "tie": 0.5, "b": 0.0}


@dataclass(frozen=True)
class Comparison:
    """One row of the table: arm_a against arm_b.

    videos: clusters of videos; those of one prompt are one cluster when there are several prompts.
    win, tie, loss: shares of the judgements, from arm_a's side.
    preference: wins and half the ties.
    bootstrap: the preference's interval by the two-way cluster bootstrap, which is too wide.
    p, p_holm: of the test of the preference against 1/2; p_holm is adjusted for the pairs of arms.
    sign_test_p: wins against losses without the ties, as if all judgements were independent.
    alpha, alpha_nominal: Krippendorff's, with loss, tie and win in order or not.
    left_share: how often the left video was preferred among the answers that are no tie; about 1/2 unless
        people favour a side. NaN where sides are not known.
    planned, reached_power: the power to tell the planned preference from 1/2, as assumed before the study
        and with the standard error that was found. detectable: what would be found in 80% of studies.
    """

    arm_a: str
    arm_b: str
    annotators: int
    videos: int
    judgements: int
    wins: int
    ties: int
    losses: int
    win: Share
    tie: Share
    loss: Share
    preference: Share
    bootstrap: tuple[float, float]
    p: float
    p_holm: float
    sign_test_p: float
    alpha: float
    alpha_nominal: float
    left_share: float
    planned: Planned
    reached_power: float
    detectable: float


@dataclass(frozen=True)
class Excluded:
    """An annotator who is not counted, with the number of judgements that this costs."""

    annotator: str
    reason: str
    judgements: int


@dataclass(frozen=True)
class Analysis:
    """All that `motive study report` says.

    planned_judgements: of pairs, by all annotators.
    ranking: best first; empty with two arms, or when there is none (`ranking_note`).
    """

    question: str
    annotators: int
    judgements: int
    planned_judgements: int
    comparisons: tuple[Comparison, ...]
    ranking: tuple[Strength, ...]
    ranking_note: str
    excluded: tuple[Excluded, ...]
    checks: dict[str, CheckResult]


@dataclass(frozen=True)
class _Table:
    """Judgements in columns. first_n, second_n: arms; values_n: 1, 1/2 or 0 for the first arm."""

    first_n: np.ndarray
    second_n: np.ndarray
    values_n: np.ndarray
    annotators_n: np.ndarray
    videos_n: np.ndarray
    items_n: np.ndarray
    lefts_n: np.ndarray


def analyse(
    design: Design,
    judgements: Sequence[Judgement],
    checks: dict[str, CheckResult],
    *,
    exclude: dict[str, str] | None = None,
) -> Analysis:
    """What the judgements say, without the annotators who are excluded.

    exclude: names with reasons, beside those who failed more checks than the design's rule allows.
    """
    excluded = _excluded(design, judgements, checks, exclude or {})
    out = {one.annotator for one in excluded}
    counted = [j for j in judgements if j.annotator not in out]
    arms = list(design.arms)
    table = _columns(arms, counted)
    rows = [
        row
        for arm_a, arm_b in design.arm_pairs
        if (row := _compare(design, table, arms, arm_a, arm_b)) is not None
    ]
    adjusted = holm([row.p for row in rows])
    rows = [replace(row, p_holm=p) for row, p in zip(rows, adjusted, strict=True)]
    ranking, note = _rank(arms, table)
    return Analysis(
        design.rules.question,
        len({j.annotator for j in counted}),
        len(counted),
        len(design.pairs) * design.rules.per_pair,
        tuple(rows),
        tuple(ranking),
        note,
        tuple(excluded),
        checks,
    )


def _excluded(
    design: Design,
    judgements: Sequence[Judgement],
    checks: dict[str, CheckResult],
    by_hand: dict[str, str],
) -> list[Excluded]:
    names = dict.fromkeys([*(j.annotator for j in judgements), *checks])
    found = []
    for name in names:
        check = checks.get(name)
        if name in by_hand:
            reason = by_hand[name]
        elif check and check.passed < design.rules.pass_share * check.answered:
            reason = (
                f"{check.passed} of {check.answered} attention checks right, "
                f"fewer than {design.rules.pass_share:.0%}"
            )
        else:
            continue
        found.append(Excluded(name, reason, sum(j.annotator == name for j in judgements)))
    return found


def _columns(arms: list[str], counted: Sequence[Judgement]) -> _Table:
    several = len({j.prompt for j in counted}) > 1
    people = {name: i for i, name in enumerate(dict.fromkeys(j.annotator for j in counted))}
    clusters = [j.prompt if several else str(j.seed) for j in counted]
    numbers = {name: i for i, name in enumerate(dict.fromkeys(clusters))}
    items = [(j.prompt, j.seed, j.arm_a, j.arm_b) for j in counted]
    item_numbers = {item: i for i, item in enumerate(dict.fromkeys(items))}
    lefts = [
        np.nan if j.a_left is None or j.winner == "tie" else float(j.a_left == (j.winner == "a"))
        for j in counted
    ]
    return _Table(
        np.array([arms.index(j.arm_a) for j in counted], np.int64),
        np.array([arms.index(j.arm_b) for j in counted], np.int64),
        np.array([_VALUE[j.winner] for j in counted], np.float64),
        np.array([people[j.annotator] for j in counted], np.int64),
        np.array([numbers[name] for name in clusters], np.int64),
        np.array([item_numbers[item] for item in items], np.int64),
        np.array(lefts, np.float64),
    )


def _compare(
    design: Design, table: _Table, arms: list[str], arm_a: str, arm_b: str
) -> Comparison | None:
    """The row of a pair of arms; None while nobody has judged it."""
    here = (table.first_n == arms.index(arm_a)) & (table.second_n == arms.index(arm_b))
    if not here.any():
        return None
    values, people, videos = table.values_n[here], table.annotators_n[here], table.videos_n[here]
    preference = share_of(values, people, videos)
    wins, ties, losses = (int((values == value).sum()) for value in _VALUE.values())
    lefts = table.lefts_n[here]
    categories = (2 * values).astype(np.int64)
    win, tie, loss = (
        share_of((values == value).astype(float), people, videos) for value in _VALUE.values()
    )
    return Comparison(
        arm_a,
        arm_b,
        annotators=len(np.unique(people)),
        videos=len(np.unique(videos)),
        judgements=len(values),
        wins=wins,
        ties=ties,
        losses=losses,
        win=win,
        tie=tie,
        loss=loss,
        preference=preference,
        bootstrap=pigeonhole_interval(values, people, videos, seed=design.rules.seed),
        p=test_against_half(preference),
        p_holm=float("nan"),
        sign_test_p=_sign_test(wins, losses),
        alpha=krippendorff_alpha(categories, table.items_n[here]),
        alpha_nominal=krippendorff_alpha(categories, table.items_n[here], level="nominal"),
        left_share=float(np.nanmean(lefts)) if not np.isnan(lefts).all() else float("nan"),
        planned=_planned(design, (arm_a, arm_b)),
        reached_power=power_of_t_test(
            design.rules.preference, preference.standard_error, preference.degrees
        ),
        detectable=detectable(preference.standard_error, preference.degrees),
    )


def planned_of(design: Design) -> list[Planned]:
    """The planned power of each pair of arms."""
    return [_planned(design, arms) for arms in design.arm_pairs]


def _planned(design: Design, arms: tuple[str, str]) -> Planned:
    pairs = [pair for pair in design.pairs if pair.arms == arms]
    prompts = len({pair.prompt for pair in pairs})
    videos = prompts if len({pair.prompt for pair in design.pairs}) > 1 else len(pairs)
    judgements = len(pairs) * design.rules.per_pair
    return planned_power(len(design.annotators), videos, judgements, design.rules.preference)


def _sign_test(wins: int, losses: int) -> float:
    from scipy import stats

    if not wins + losses:
        return float("nan")
    return float(stats.binomtest(wins, wins + losses).pvalue)


def _rank(arms: list[str], table: _Table) -> tuple[list[Strength], str]:
    if len(arms) < 3 or not len(table.values_n):
        return [], ""
    return bradley_terry(
        arms, table.first_n, table.second_n, table.values_n, table.annotators_n, table.videos_n
    )
