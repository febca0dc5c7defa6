"""What a score is worth: does it predict training, and does its top 10% show the query's motion?"""

from typing import Any

import numpy as np
from counterfactual_corpora import Corpus

from motive.influence.datamodelling import (
    bootstrap,
    interval,
    linear_datamodelling_scores,
    noise_ceiling,
    seed_correlation,
)
from motive.zoo.check import mean_interval, precision_at_top

LOSSES = ("masked", "plain")  # of the query, as `Retraining.losses` gives them


class Judge:
    """Retrainings of one corpus, to hold scores against.

    losses_rsql: of each seed, subset, query and kind of loss. members_sn: which clips each subset has.
    resamples: of a bootstrap.
    """

    def __init__(
        self, corpus: Corpus, losses_rsql: np.ndarray, members_sn: np.ndarray, resamples: int
    ) -> None:
        self.corpus, self.members, self.resamples = corpus, members_sn, resamples
        self.losses = losses_rsql
        self.motions = corpus.labels("query", "motion"), corpus.labels("clip", "motion")
        self.ids = [m.clip_id for m in corpus.members["clip"]]

    def ceilings(self) -> dict[str, Any]:
        """By loss: the correlation of two seeds, and what a perfect predictor would score."""
        found = {}
        for kind, name in enumerate(LOSSES):
            losses = self.losses[..., kind]

            def ceiling(s: np.ndarray, q: np.ndarray, losses: np.ndarray = losses) -> float:
                return noise_ceiling(losses[:, s][:, :, q])

            _, subsets, queries = losses.shape
            found[name] = {
                "seed_correlation": seed_correlation(losses),
                "ceiling": noise_ceiling(losses),
                "over_subsets": interval(
                    bootstrap(ceiling, subsets, queries, over="subsets", draws=self.resamples)
                ),
                "over_queries": interval(
                    bootstrap(ceiling, subsets, queries, over="queries", draws=self.resamples)
                ),
            }
        return found

    def verdict(self, scores_qn: np.ndarray) -> dict[str, Any]:
        """LDS for each loss with intervals, its share of the ceiling, and the precision."""
        found: dict[str, Any] = {}
        for kind, name in enumerate(LOSSES):
            losses = self.losses[..., kind]
            mean, (_, subsets, queries) = losses.mean(0), losses.shape

            def score(s: np.ndarray, q: np.ndarray, mean: np.ndarray = mean) -> float:
                part = linear_datamodelling_scores(scores_qn[q], mean[s][:, q], self.members[s])
                return float(part.mean())

            by_query = linear_datamodelling_scores(scores_qn, mean, self.members)
            found[name] = {
                "lds": float(by_query.mean()),
                "over_subsets": interval(
                    bootstrap(score, subsets, queries, over="subsets", draws=self.resamples)
                ),
                "over_queries": interval(
                    bootstrap(score, subsets, queries, over="queries", draws=self.resamples)
                ),
                "of_ceiling": float(by_query.mean()) / max(noise_ceiling(losses), 1e-9),
                "by_query": [round(float(v), 4) for v in by_query],
            }
        shares = precision_at_top(scores_qn, *self.motions, self.ids)
        mean_share, low, high = mean_interval(shares.tolist())
        found["precision"] = {"mean": mean_share, "over_queries": (low, high)}
        return found

    def gain(self, mine_qn: np.ndarray, other_qn: np.ndarray, kind: int = 0) -> tuple[float, ...]:
        """How much more LDS, with an interval over subsets and queries both, paired draw by draw."""
        mean = self.losses[..., kind].mean(0)

        def difference(s: np.ndarray, q: np.ndarray) -> float:
            mine, other = (
                linear_datamodelling_scores(scores[q], mean[s][:, q], self.members[s]).mean()
                for scores in (mine_qn, other_qn)
            )
            return float(mine - other)

        subsets, queries = mean.shape
        whole = difference(np.arange(subsets), np.arange(queries))
        return whole, *interval(
            bootstrap(difference, subsets, queries, over="both", draws=self.resamples)
        )
