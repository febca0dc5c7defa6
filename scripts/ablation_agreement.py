"""Parts (a) and (b): one timestep against ten, and a projection against the whole gradient."""

from typing import Any

import numpy as np
from ablation_measures import over_queries, precision, spearman, top_overlap
from ablation_setting import NESTED, Study
from ablation_whole import WholeGradients

from motive.gradients.stage import average_of_units
from motive.influence.estimators import cosine, normalised

NOISE = 700  # of timestep number k the noise seed NOISE + k: the run's own is another


def timesteps(study: Study, whole: WholeGradients) -> dict[str, Any]:
    """Agreement of the ranking by one timestep with that by the average of all, which have noises apart.

    Those of the average are held against all of them, as the paper does, and against the others, since a
    timestep agrees with itself. The paper's is in no average; it is there with two noises, and held against
    an average whose timesteps all have its own noise too.
    """
    single = {t: whole.at(t, NOISE + k) for k, t in enumerate(study.setting.timesteps)}
    ten = _scores(*_averaged(list(single.values())))
    queries, clips, _ = whole.projected("fastfood", 0, max(study.setting.dims))
    paper = _scores(queries, clips[: whole.first])
    again = _scores(*whole.at(whole.timestep, NOISE + len(single)))
    same = [whole.at(t, study.paper.noise_seed) for t in study.setting.timesteps]
    of_one_noise = _scores(*_averaged(same))
    found: dict[str, Any] = {
        "clips": whole.first,
        "average": {"precision": _precision(study, ten)},
        "single": [],
    }
    for t, features in single.items():
        others = _scores(*_averaged([f for other, f in single.items() if other != t]))
        scores = _scores(*features)
        found["single"].append(
            {
                "timestep": t,
                "with_all": _agreement(study, scores, ten),
                "with_others": _agreement(study, scores, others),
                "precision": _precision(study, scores),
            }
        )
    found["paper"] = {
        "timestep": whole.timestep,
        "with_all": _agreement(study, paper, ten),
        "precision": _precision(study, paper),
        "other_noise_with_all": _agreement(study, again, ten),
        "with_other_noise": _agreement(study, paper, again),
        "with_all_of_its_noise": _agreement(study, paper, of_one_noise),
    }
    return found


def projections(study: Study, whole: WholeGradients) -> dict[str, Any]:
    """Rank correlation of projected scores with the whole gradient's, by kind and dimension."""
    setting = study.setting
    exact = exact_scores(whole)
    found: dict[str, Any] = {"exact_precision": _precision(study, exact), "kinds": {}}
    for kind, seeds in setting.projection_seeds.items():
        rows = found["kinds"][kind] = []
        for dim in setting.dims_of(kind):
            made = [whole.projected(kind, seed, dim) for seed in range(seeds)]
            pairs = [(cosine(queries, clips), exact[:, places]) for queries, clips, places in made]
            same = [spearman(*pair) for pair in pairs]
            overlap = [top_overlap(*pair) for pair in pairs]
            rows.append(
                {
                    "dim": dim,
                    "clips": pairs[0][0].shape[1],
                    "spearman": over_queries(np.array(same), setting.resamples),
                    "by_seed": np.mean(same, axis=1).round(4).tolist(),
                    "top": over_queries(np.array(overlap), setting.resamples),
                }
            )
    found["predicted"] = _predicted(whole, exact, setting.dims)
    return found


def exact_scores(whole: WholeGradients, chosen: np.ndarray | None = None) -> np.ndarray:
    """The cosines `(Q, N)` of whole gradients, or of some parameters' part of them.

    chosen: of each parameter whether it counts.
    """
    products, queries, clips = whole.products()
    chosen = np.ones(len(products), bool) if chosen is None else chosen
    lengths = np.sqrt(np.outer(queries[chosen].sum(0), clips[chosen].sum(0)))
    return products[chosen].astype(np.float64).sum(0) / lengths


def _predicted(whole: WholeGradients, exact_qn: np.ndarray, dims: tuple[int, ...]) -> list[float]:
    """Correlation that the variance of a projection lets one expect, mean over queries, for each dimension.

    With c = m + r, m the mean of the clips' unit gradients, the error of qᵀm is the same for all clips and
    no ranking's. That of qᵀr has the variance (|r|² + (qᵀr)²) / dim, so Pearson's correlation is
    √(s² / (s² + that)), with s² the variance of the scores over the clips.
    """
    widest = max(whole.study.setting.dims)
    kind = next(k for k in NESTED if k in whole.study.setting.projection_seeds)
    _, clips, _ = whole.projected(kind, 0, widest)
    spread = 1 - float((normalised(clips).mean(0) ** 2).sum())
    signal = exact_qn.var(axis=1)
    return [float(np.sqrt(signal / (signal + (spread + signal) / dim)).mean()) for dim in dims]


Both = tuple[np.ndarray, np.ndarray]  # features of the queries and of the clips


def _averaged(features: list[Both]) -> Both:
    """As the product averages (t, ε): unit vectors, their mean, normalised."""
    queries, clips = (
        np.stack(
            [
                average_of_units([f[side][i] for f in features])[0]
                for i in range(len(features[0][side]))
            ]
        )
        for side in (0, 1)
    )
    return queries, clips


def _scores(queries: np.ndarray, clips: np.ndarray) -> np.ndarray:
    return cosine(queries.astype(np.float64), clips.astype(np.float64))


def _agreement(study: Study, mine: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    resamples = study.setting.resamples
    return {
        "spearman": over_queries(spearman(mine, other), resamples),
        "top": over_queries(top_overlap(mine, other), resamples),
    }


def _precision(study: Study, scores: np.ndarray) -> dict[str, Any]:
    wanted, shown = study.labels("query", "motion"), study.labels("clip", "motion")
    shown = shown[: scores.shape[1]]
    return over_queries(precision(scores, wanted, shown), study.setting.resamples)
