"""Each number against a reference: statsmodels, krippendorff, choix, scipy."""

import warnings

import choix
import krippendorff
import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.sandwich_covariance import cov_cluster
from study_parts import clustered_answers

from motive.study.agreement import krippendorff_alpha
from motive.study.clustered import (
    holm,
    pigeonhole_interval,
    share_of,
    test_against_half,
    two_way_covariance,
)
from motive.study.power import detectable, planned_power, power_of_t_test
from motive.study.ranking import bradley_terry

PAPER = (17, 50)  # annotators, videos


@pytest.fixture(params=[0, 1, 2])
def answers(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, annotators and videos: everybody on every video, and a third and a half of that."""
    rng = np.random.default_rng(request.param)
    values, annotators, videos = clustered_answers(
        rng, *PAPER, by_annotator=0.6, by_video=0.8, shift=1.2
    )
    kept = rng.random(len(values)) < (1, 1 / 3, 1 / 2)[request.param]
    return values[kept], annotators[kept], videos[kept]


def test_two_way_standard_error_is_that_of_statsmodels(
    answers: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    values, annotators, videos = answers
    fit = sm.OLS(values, np.ones((len(values), 1))).fit()
    groups = (annotators, videos, np.arange(len(values)))
    # statsmodels corrects each part by G/(G − 1) · (n − 1)/(n − k); with k = 1 that is G/(G − 1).
    parts = [float(cov_cluster(fit, group)[0, 0]) for group in groups]
    ours = two_way_covariance((values - values.mean())[:, None], annotators, videos)
    assert ours[0, 0] / len(values) ** 2 == pytest.approx(parts[0] + parts[1] - parts[2], rel=1e-9)
    share = share_of(values, annotators, videos)
    assert share.standard_error == pytest.approx(
        fit_of_groups(values, annotators, videos), rel=1e-9
    )
    expected = fit.get_robustcov_results("cluster", groups=annotators)
    assert expected.params[0] == pytest.approx(share.value)


def fit_of_groups(values: np.ndarray, annotators: np.ndarray, videos: np.ndarray) -> float:
    """What `OLS.fit(cov_type="cluster")` with two groups gives."""
    groups = np.column_stack([annotators, videos])
    fit = sm.OLS(values, np.ones((len(values), 1))).fit(
        cov_type="cluster", cov_kwds={"groups": groups}
    )
    return float(fit.bse[0])


def test_p_value_is_that_of_a_t_test_with_that_error(
    answers: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    share = share_of(*answers)
    from scipy import stats

    t = (share.value - 0.5) / share.standard_error
    assert share.degrees == 16
    assert test_against_half(share) == pytest.approx(2 * stats.t.sf(abs(t), 16))
    low, high = stats.t.interval(0.95, 16, share.value, share.standard_error)
    # Wilson's interval leans towards 1/2, the more the nearer to 0 or 1.
    assert share.low == pytest.approx(low, abs=0.02)
    assert share.high == pytest.approx(high, abs=0.02)
    assert share.high < high


def test_independent_answers_have_wilsons_interval() -> None:
    from statsmodels.stats.proportion import proportion_confint

    # One answer of each annotator, each on a video of its own: no two go together.
    values = (np.arange(2000) % 10 < 7).astype(float)
    share = share_of(values, np.arange(2000), np.arange(2000))
    assert share.design_effect == pytest.approx(1)
    low, high = proportion_confint(1400, 2000, method="wilson")
    assert (share.low, share.high) == pytest.approx((low, high), abs=2e-4)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_where_all_answers_are_the_same_the_clusters_count(value: float) -> None:
    annotators, videos = (index.ravel() for index in np.indices((8, 30)))
    share = share_of(np.full(240, value), annotators, videos)
    assert share.low <= value <= share.high
    assert 0.2 < share.high - share.low < 0.6  # as of 8 answers, not of 240
    assert np.isnan(test_against_half(share))


def test_one_annotator_or_one_video_has_no_interval() -> None:
    values = np.array([1.0, 0, 1, 0.5])
    for clusters in [(np.zeros(4), np.arange(4)), (np.arange(4), np.zeros(4))]:
        share = share_of(values, *(c.astype(int) for c in clusters))
        assert share.value == 0.625
        assert np.isnan([share.low, share.high, share.standard_error]).all()


def test_shares_of_win_tie_and_loss_mirror_when_arms_are_exchanged(
    answers: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    values, annotators, videos = answers
    share, mirrored = share_of(values, annotators, videos), share_of(1 - values, annotators, videos)
    assert mirrored.value == pytest.approx(1 - share.value)
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - share.high, 1 - share.low))


def test_intervals_cover_the_truth_and_those_of_independence_do_not() -> None:
    """The thousand simulations of docs/study.md in short; four deviations of chance are allowed."""
    rng = np.random.default_rng(3)
    naive = ours = 0
    simulations = 250
    for _ in range(simulations):
        values, annotators, videos = clustered_answers(
            rng, *PAPER, by_annotator=0.6, by_video=0.8, shift=0
        )
        share = share_of(values, annotators, videos)
        ours += share.low <= 0.5 <= share.high
        error = values.std() / len(values) ** 0.5
        naive += abs(values.mean() - 0.5) <= 1.96 * error
    assert 0.895 <= ours / simulations <= 0.995
    assert naive / simulations < 0.75


def test_bootstrap_is_the_wider_one() -> None:
    rng = np.random.default_rng(5)
    values, annotators, videos = clustered_answers(
        rng, *PAPER, by_annotator=0, by_video=0, shift=0.4
    )
    share = share_of(values, annotators, videos)
    low, high = pigeonhole_interval(values, annotators, videos)
    assert low < share.low < share.high < high
    assert (high - low) / (share.high - share.low) > 1.3  # √3 without t-quantiles
    assert (low, high) == pigeonhole_interval(values, annotators, videos)


@st.composite
def rated(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Ratings, with gaps: annotators by items, NaN where there is none."""
    seed = draw(st.integers(0, 2**31))
    rng = np.random.default_rng(seed)
    table = rng.integers(0, 3, (draw(st.integers(2, 17)), draw(st.integers(2, 50)))).astype(float)
    table[rng.random(table.shape) < draw(st.floats(0, 0.7))] = np.nan
    _, items = np.nonzero(~np.isnan(table))
    return table, items


@pytest.mark.parametrize("level", ["nominal", "ordinal"])
@given(table_items=rated())
@settings(max_examples=60, deadline=None)
def test_alpha_is_that_of_krippendorff(
    level: str, table_items: tuple[np.ndarray, np.ndarray]
) -> None:
    table, items = table_items
    categories = table[~np.isnan(table)].astype(int)
    ours = krippendorff_alpha(categories, items, level=level)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            theirs = krippendorff.alpha(
                reliability_data=table, level_of_measurement=level, value_domain=[0, 1, 2]
            )
        except (ValueError, AssertionError, ZeroDivisionError):
            return  # there is too little for an alpha
    assert ours == pytest.approx(theirs, nan_ok=True, abs=1e-12)


def test_alpha_of_full_agreement_is_one_and_of_nothing_unknown() -> None:
    assert krippendorff_alpha(np.array([0, 0, 2, 2]), np.array([0, 0, 1, 1])) == 1
    assert np.isnan(krippendorff_alpha(np.array([0, 2]), np.array([0, 1])))
    assert np.isnan(krippendorff_alpha(np.array([1, 1]), np.array([0, 0])))
    assert np.isnan(krippendorff_alpha(np.array([], int), np.array([], int)))


def _tournament(seed: int) -> tuple[np.ndarray, ...]:
    """Five arms, all pairs, 17 annotators on 50 videos with ties: a study of the paper's shape."""
    rng = np.random.default_rng(seed)
    strengths = np.array([0.8, 0.3, 0.1, -0.4, -0.8])
    columns = []
    for first in range(5):
        for second in range(first + 1, 5):
            shift = strengths[first] - strengths[second]
            values, annotators, videos = clustered_answers(
                rng, *PAPER, by_annotator=0.3, by_video=0.5, shift=shift
            )
            ones = np.ones_like(annotators)
            columns.append((first * ones, second * ones, values, annotators, videos))
    return tuple(np.concatenate(parts) for parts in zip(*columns, strict=True))


def test_strengths_are_those_of_choix_and_statsmodels() -> None:
    first, second, values, annotators, videos = _tournament(0)
    arms = ["a", "b", "c", "d", "e"]
    ranking, note = bradley_terry(arms, first, second, values, annotators, videos)
    assert note == ""
    ours = {one.arm: one for one in ranking}
    # choix knows no ties: each judgement counts twice, a tie once for either side.
    won = np.zeros((5, 5))
    np.add.at(won, (first, second), 2 * values)
    np.add.at(won, (second, first), 2 - 2 * values)
    theirs = choix.ilsr_pairwise_dense(won, tol=1e-10)
    found = np.array([ours[arm].strength for arm in arms])
    np.testing.assert_allclose(found, theirs - theirs.mean(), atol=1e-5)
    assert found.sum() == pytest.approx(0, abs=1e-9)
    assert [one.rank for one in ranking] == [1, 2, 3, 4, 5]

    # The last arm's strength is fixed at 0 there: differences from it and their errors are the same.
    design = np.zeros((len(values), 5))
    rows = np.arange(len(values))
    design[rows, first], design[rows, second] = 1, -1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = sm.GLM(values, design[:, :4], family=sm.families.Binomial()).fit(
            cov_type="cluster",
            cov_kwds={"groups": np.column_stack([annotators, videos])},
            tol=1e-12,
        )
    np.testing.assert_allclose(fit.params, found[:4] - found[4], atol=1e-7)
    # To strengths that sum to zero: subtract the mean of all five.
    to_zero_sum = np.vstack([np.eye(4), np.zeros(4)]) - 0.2
    errors = np.sqrt(np.diag(to_zero_sum @ fit.cov_params() @ to_zero_sum.T))
    from scipy import stats

    half = np.array([(ours[arm].high - ours[arm].low) / 2 for arm in arms])
    np.testing.assert_allclose(half / stats.t.ppf(0.975, 16), errors, rtol=2e-3)


def test_an_arm_that_never_lost_has_no_strength() -> None:
    first, second = np.array([0, 0, 1, 2]), np.array([1, 2, 2, 1])
    zeros = np.arange(4)
    ranking, note = bradley_terry(
        ["best", "x", "y"], first, second, np.array([1.0, 1, 1, 1]), zeros, zeros
    )
    assert ranking == []
    assert note == "best never lost to the others, so that no finite strength fits"


def test_power_is_that_of_statsmodels() -> None:
    reference = TTestPower()
    for preference, deviation, count in [(0.6, 0.45, 40), (0.55, 0.3, 200), (0.7, 0.5, 12)]:
        theirs = reference.power(
            (preference - 0.5) / deviation, nobs=count, alpha=0.05, alternative="two-sided"
        )
        ours = power_of_t_test(preference, deviation / count**0.5, count - 1)
        assert ours == pytest.approx(theirs, abs=1e-6)
        found = detectable(deviation / count**0.5, count - 1)
        assert power_of_t_test(found, deviation / count**0.5, count - 1) == pytest.approx(
            0.8, abs=1e-4
        )


def test_planned_power_grows_with_annotators_videos_and_preference() -> None:
    base = planned_power(17, 50, 850, 0.6).power
    assert planned_power(8, 50, 400, 0.6).power < base < planned_power(17, 100, 1700, 0.6).power
    assert base < planned_power(17, 50, 850, 0.65).power <= 1
    assert np.isnan(planned_power(1, 50, 50, 0.6).power)


@pytest.mark.parametrize("count", [1, 4, 8])
def test_holm_is_that_of_statsmodels(count: int) -> None:
    p_values = (np.random.default_rng(count).random(count) ** 4).tolist()
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1].tolist())


def test_holm_leaves_out_what_is_unknown() -> None:
    assert holm([0.01, float("nan"), 0.04]) == pytest.approx(
        [0.02, float("nan"), 0.04], nan_ok=True
    )
