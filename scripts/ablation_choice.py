"""Parts (c), (d) and (e): what length, motion magnitude and the motion asked for have to do with a score."""

from collections.abc import Callable
from typing import Any

import numpy as np
from ablation_measures import TOP, best, correlation_with, over_queries, precision
from ablation_setting import Study

from motive.influence.datamodelling import interval, rank_correlation
from motive.influence.estimators import cosine, dot
from motive.influence.selection import rank_clips

TOP_CLIPS = 100  # the paper's, of 10,000
PERCENTILE = 90.0  # of a query's votes


def length(study: Study) -> dict[str, Any]:
    """Correlation of norms, raw scores and influence with a clip's frames, with and without the factor."""
    frames, query_frames = study.frames("clip"), study.frames("query")
    raw, influence = {}, {}
    for factor in (False, True):
        clips = study.features("clip", length_factor=factor)
        queries = study.features("query", length_factor=factor)
        raw[factor] = clips.features_nd * clips.norms[:, None], clips.norms
        influence[factor] = queries.influence_of(clips)
    queries = study.features("query")
    losses = {
        "sum over frames": (raw[False][0] * frames[:, None], raw[False][1] * frames),
        "mean over frames": raw[False],
        "mean over frames, 1/F": raw[True],
    }
    scores = cosine(
        queries.features_nd, raw[True][0]
    )  # of unit vectors, whatever their lengths were
    by_length = standardised_by(scores, frames)
    wanted, shown = study.labels("query", "motion"), study.labels("clip", "motion")
    resamples = study.setting.resamples

    def row(found: np.ndarray) -> dict[str, Any]:
        return {
            "with_length": over_queries(correlation_with(frames, found), resamples),
            "precision": over_queries(precision(found, wanted, shown), resamples),
            "same_length": over_queries(
                _share_of_top(found, frames[None] == query_frames[:, None]), resamples
            ),
        }

    return {
        "clips": {str(f): int((frames == f).sum()) for f in np.unique(frames)},
        "queries": {str(f): int((query_frames == f).sum()) for f in np.unique(query_frames)},
        "norm": {
            name: _over_clips(
                lambda some, norms=norms: rank_correlation(frames[some, None], norms[some, None])[
                    0
                ],
                len(frames),
                resamples,
            )
            for name, (_, norms) in losses.items()
        },
        "mean_norm": {
            name: {str(f): float(norms[frames == f].mean()) for f in np.unique(frames)}
            for name, (_, norms) in losses.items()
        },
        "raw_score": {
            name: row(dot(queries.features_nd, vectors)) for name, (vectors, _) in losses.items()
        },
        "influence": {
            "1/F": row(influence[True]),
            "no factor": row(influence[False]),
            "1/F, standardised among clips of one length": row(by_length),
        },
        "largest_difference": float(np.abs(influence[True] - influence[False]).max()),
        "by_query_length": {
            str(f): {
                "with_length": over_queries(
                    correlation_with(frames, scores[query_frames == f]), resamples
                ),
                "mean_score": {
                    str(g): float(scores[np.ix_(query_frames == f, frames == g)].mean())
                    for g in np.unique(frames)
                },
            }
            for f in np.unique(query_frames)
        },
        "chance_same_length": float(np.mean(frames[None] == query_frames[:, None])),
    }


def standardised_by(scores_qn: np.ndarray, groups_n: np.ndarray) -> np.ndarray:
    """Each query's scores less the mean of the clip's group, over its deviation."""
    found = np.empty_like(scores_qn)
    for group in np.unique(groups_n):
        mine = scores_qn[:, groups_n == group]
        spread = np.maximum(mine.std(1, keepdims=True), 1e-12)
        found[:, groups_n == group] = (mine - mine.mean(1, keepdims=True)) / spread
    return found


def magnitude(study: Study) -> dict[str, Any]:
    """Motion of the best and the worst 10% of the clips, by the votes of all queries, and of all clips."""
    ids = study.moving["clip"]
    speed, own = study.statistic("mean_speed"), study.statistic("object_speed")
    films = study.labels("clip", "camera") != "none"
    measured = {"mean speed": speed, "speed of objects": own, "moving camera": films.astype(float)}
    everything = np.ones(len(ids), bool)
    among = dict.fromkeys(measured, everything) | {"mean speed, still camera": ~films}
    measured["mean speed, still camera"] = speed
    masked = study.features("query").influence_of(study.features("clip"))
    plain = study.features("query", mask="none").influence_of(study.features("clip", mask="none"))
    scores = {
        "Motive": masked,
        "Motive without the mask": plain,
        "motion magnitude": np.broadcast_to(speed.astype(np.float32), masked.shape),
    }

    def ends(found: np.ndarray, what: str) -> np.ndarray:
        order = rank_clips(found, ids, fraction=TOP, percentile=PERCENTILE).order
        values = measured[what][order[among[what][order]]]
        count = max(1, round(TOP * len(values)))
        return np.array([values[:count].mean(), values[-count:].mean()])

    rng = np.random.default_rng([len(ids), 29])
    resamples = min(study.setting.resamples, 300)
    draws = [rng.integers(len(masked), size=len(masked)) for _ in range(resamples)]
    found: dict[str, Any] = {
        "all": {name: float(values[among[name]].mean()) for name, values in measured.items()},
        "methods": {},
    }
    for name, values_qn in scores.items():
        row: dict[str, Any] = {}
        for what in measured:
            drawn = np.array([ends(values_qn[some], what) for some in draws])
            for end, place in (("top", 0), ("bottom", 1)):
                low, high = interval(drawn[:, place])
                mean = float(ends(values_qn, what)[place])
                row.setdefault(what, {})[end] = {"mean": mean, "low": low, "high": high}
        row["with_speed"] = over_queries(
            correlation_with(speed, values_qn), study.setting.resamples
        )
        found["methods"][name] = row
    return found


def overlap(study: Study) -> dict[str, Any]:
    """Top-100 overlap between the motions, and of single queries of the same and of different motions."""
    ids = study.moving["clip"]
    scores = study.features("query").influence_of(study.features("clip"))
    motions = study.labels("query", "motion")
    names = list(dict.fromkeys(motions.tolist()))
    found: dict[str, Any] = {"motions": names, "clips": len(ids)}
    for label, count in (
        ("top_100", min(TOP_CLIPS, len(ids) // 2)),
        ("top_10_percent", max(1, round(TOP * len(ids)))),
    ):
        chosen = [
            rank_clips(scores[motions == name], ids, fraction=TOP, percentile=PERCENTILE).order[
                :count
            ]
            for name in names
        ]
        single = [best(row, count) for row in scores]
        found[label] = {
            "count": count,
            "chance": count / len(ids),
            "matrix": _overlaps(chosen).tolist(),
            **_between_queries(_overlaps(single), motions, study.setting.resamples),
        }
    return found


def _overlaps(chosen: list[np.ndarray]) -> np.ndarray:
    """Share of each set that is in each other one; all are of one size."""
    return np.array([[len(np.intersect1d(a, b)) / len(a) for b in chosen] for a in chosen])


def _between_queries(shares_qq: np.ndarray, motions: np.ndarray, resamples: int) -> dict[str, Any]:
    same = motions[:, None] == motions[None]
    other = ~np.eye(len(motions), dtype=bool)
    paired = (same & other).any(1)  # queries whose motion another one has
    pairs = {"same_motion": (same & other)[paired], "other_motion": ~same[paired]}
    return {
        name: over_queries((shares_qq[paired] * which).sum(1) / which.sum(1), resamples)
        for name, which in pairs.items()
        if paired.any() and which.any()
    }


def _share_of_top(scores_qn: np.ndarray, alike_qn: np.ndarray) -> np.ndarray:
    count = max(1, round(TOP * scores_qn.shape[1]))
    return np.array(
        [alike[best(row, count)].mean() for row, alike in zip(scores_qn, alike_qn, strict=True)]
    )


def _over_clips(
    statistic: Callable[[np.ndarray], float], count: int, resamples: int
) -> dict[str, float]:
    """A statistic of the clips at some places, with its 95% bootstrap interval over clips."""
    rng = np.random.default_rng([count, 31])
    drawn = [float(statistic(rng.integers(count, size=count))) for _ in range(resamples)]
    low, high = interval(drawn)
    return {"mean": float(statistic(np.arange(count))), "low": low, "high": high}
