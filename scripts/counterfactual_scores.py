"""The scores that are held against retraining: baselines, the paper's estimator, and the candidates."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from counterfactual_corpora import Corpus
from counterfactual_gradients import Draws, Gradients

from motive.influence.estimators import (
    MOTION_FLOOR,
    averaged,
    centred_cosine,
    cosine,
    dot,
    normalised,
    ridge,
    with_floor,
)
from motive.runs.members import Role

CLIP_NOISE, OTHER_NOISE = 901, 902  # no training and no measurement has them


@dataclass(frozen=True)
class Features:
    """The gradient features of a corpus in `dim` dimensions, summed over draws.

    draws: how many timesteps and noises the larger sets have.
    """

    gradients: Gradients
    draws: int
    dim: int

    def one(self, role: Role, *, masked: bool) -> np.ndarray:
        """At the paper's timestep, with the noise that all share."""
        corpus = self.gradients.corpus
        timestep = float(self.gradients.backbone.default_timestep())
        draws = Draws(1, corpus.plan.seed, timestep)
        return self._mean(role, masked, draws, preconditioned=False)

    def clips(self, floor: float | None, *, preconditioned: bool = True) -> np.ndarray:
        draws = Draws(self.draws, CLIP_NOISE)
        plain = self._mean("clip", False, draws, preconditioned)
        if floor is None:
            return plain
        masked = self._mean("clip", True, draws, preconditioned)
        return with_floor(masked, plain, floor)

    def queries(
        self,
        *,
        masked: bool = True,
        shared: bool = True,
        apart: bool = True,
        preconditioned: bool = True,
    ) -> np.ndarray:
        """Over the draws that the clips have too, over independent ones, or both."""
        sets = [CLIP_NOISE] * shared + [OTHER_NOISE] * apart
        means = [self._mean("query", masked, Draws(self.draws, n), preconditioned) for n in sets]
        return np.mean(means, axis=0)

    def few(self, clip_draws: int, query_draws: int) -> tuple[np.ndarray, np.ndarray]:
        """Both sides over fewer of the draws, evenly spread over timesteps: queries, clips."""
        clips = self._cut("clip", False, Draws(self.draws, CLIP_NOISE), preconditioned=True)
        queries = np.concatenate(
            [
                self._cut("query", True, Draws(self.draws, n), preconditioned=True)
                for n in (OTHER_NOISE, CLIP_NOISE)
            ]
        )
        return averaged(_spread(queries, query_draws)), averaged(_spread(clips, clip_draws))

    def _mean(self, role: Role, masked: bool, draws: Draws, preconditioned: bool) -> np.ndarray:
        return _mean(self.gradients, role, masked, draws, preconditioned)[:, : self.dim]

    def _cut(self, role: Role, masked: bool, draws: Draws, preconditioned: bool) -> np.ndarray:
        whole = self.gradients.of(role, masked=masked, draws=draws, preconditioned=preconditioned)
        return whole[..., : self.dim]


Scores = Callable[[], np.ndarray]


def baselines(corpus: Corpus, seed: int) -> dict[str, Scores]:
    """What knows nothing of the model, `(Q, N)` each."""
    queries, clips = corpus.members["query"], corpus.members["clip"]
    shape = len(queries), len(clips)
    rng = np.random.default_rng([seed, 6])

    def oracle() -> np.ndarray:
        wanted, labels = (np.array(corpus.labels(r, "motion")) for r in ("query", "clip"))
        return (wanted[:, None] == labels[None]) + 1e-9 * rng.random(shape)

    def statistics() -> np.ndarray:
        every = np.concatenate([corpus.statistics("query"), corpus.statistics("clip")])
        every = (every - every.mean(0)) / np.maximum(every.std(0), 1e-9)
        return cosine(every[: shape[0]], every[shape[0] :])

    return {
        "random": lambda: rng.random(shape),
        "motion magnitude": lambda: np.broadcast_to(corpus.statistics("clip")[:, 0], shape),
        "same motion label (oracle)": oracle,
        "cosine of motion statistics": statistics,
        "cosine of pixels": lambda: cosine(*_pixels(corpus)),
    }


def single_draw(features: Features) -> dict[str, Scores]:
    """Estimators of one (t, ε), as the paper's."""
    one = features.one
    return {
        "Motive without the mask": lambda: cosine(
            one("query", masked=False), one("clip", masked=False)
        ),
        "Motive (paper)": lambda: cosine(one("query", masked=True), one("clip", masked=True)),
    }


def winners(features: Features) -> dict[str, Scores]:
    """The estimators of `motive.influence.estimators` that this study proposes."""
    return {
        "effect": lambda: dot(features.queries(), features.clips(None)),
        "motion-effect": lambda: cosine(features.queries(), features.clips(MOTION_FLOOR)),
    }


def candidates(features: Features) -> dict[str, Scores]:
    """What was tried on the way, each a step from the one before it or a variant."""
    one, many = features.one, features.draws

    def fewer(clip_draws: int, query_draws: int) -> Scores:
        return lambda: dot(*features.few(clip_draws, query_draws))

    found: dict[str, Scores] = {
        "paper, centred": lambda: centred_cosine(
            one("query", masked=True), one("clip", masked=True)
        ),
        "no mask, centred": lambda: centred_cosine(
            one("query", masked=False), one("clip", masked=False)
        ),
        "paper, dot product": lambda: dot(one("query", masked=True), one("clip", masked=True)),
        "clip plain, query masked, one draw, cosine": lambda: cosine(
            one("query", masked=True), one("clip", masked=False)
        ),
        "clip plain, query masked, one draw, dot": lambda: dot(
            one("query", masked=True), one("clip", masked=False)
        ),
    }
    for count in (1, 4, many):
        found[f"AdamW's metric, {count} draws a clip, {count} a query"] = fewer(count, count)
    found[f"AdamW's metric, {many} a clip, {many} a query, shared noise"] = lambda: dot(
        features.queries(apart=False), features.clips(None)
    )
    found["effect on the plain loss"] = lambda: dot(
        features.queries(masked=False), features.clips(None)
    )
    for damping in (3.0, 10.0):
        found[f"effect on the plain loss, ridge {damping:g}"] = lambda damping=damping: ridge(
            features.queries(masked=False), features.clips(None), damping
        )
    found["effect, cosine"] = lambda: cosine(features.queries(), features.clips(None))
    found["effect, centred cosine"] = lambda: centred_cosine(
        features.queries(), features.clips(None)
    )
    for damping in (1.0, 10.0):
        found[f"effect, ridge {damping:g}"] = lambda damping=damping: ridge(
            features.queries(), features.clips(None), damping
        )
    for floor in (0.0, 0.1, 0.2, 0.5, 1.0):
        found[f"clip weights W + {floor:g}, cosine"] = lambda floor=floor: cosine(
            features.queries(), features.clips(floor)
        )
    found["motion-effect, dot"] = lambda: dot(features.queries(), features.clips(MOTION_FLOOR))
    found["half effect, half paper (standardised)"] = lambda: (
        _standard(winners(features)["effect"]())
        + _standard(single_draw(features)["Motive (paper)"]())
    )
    return found


def without_metric(features: Features) -> dict[str, Scores]:
    """The same sums in the parameters' own coordinates."""

    def sides() -> tuple[np.ndarray, np.ndarray]:
        return (
            features.queries(preconditioned=False),
            features.clips(None, preconditioned=False),
        )

    found: dict[str, Scores] = {"no metric, dot": lambda: dot(*sides())}
    for damping in (0.3, 1.0, 3.0, 10.0, 30.0):
        found[f"no metric, ridge {damping:g}"] = lambda damping=damping: ridge(*sides(), damping)
    return found


@cache
def _mean(
    gradients: Gradients, role: Role, masked: bool, draws: Draws, preconditioned: bool
) -> np.ndarray:
    return averaged(gradients.of(role, masked=masked, draws=draws, preconditioned=preconditioned))


def _spread(draws_knd: np.ndarray, count: int) -> np.ndarray:
    if count >= len(draws_knd):
        return draws_knd
    return draws_knd[np.linspace(0, len(draws_knd) - 1, count + 2)[1:-1].round().astype(int)]


def _standard(scores_qn: np.ndarray) -> np.ndarray:
    return (scores_qn - scores_qn.mean(1, keepdims=True)) / scores_qn.std(1, keepdims=True)


def _pixels(corpus: Corpus) -> tuple[np.ndarray, np.ndarray]:
    """Frames as vectors around grey; of clips of several lengths the frames that all have."""
    frames = {role: corpus.pixels(role) for role in ("query", "clip")}
    shortest = min(len(f) for role in frames.values() for f in role)
    vectors = {
        role: np.stack([f[:shortest].ravel() / 127.5 - 1 for f in found])
        for role, found in frames.items()
    }
    return normalised(vectors["query"]), normalised(vectors["clip"])
