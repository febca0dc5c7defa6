"""Estimators of influence, by name: whose gradients, how they are put together, and how two are compared.

*What a fine-tune does.* AdamW starts at the base model θ and takes T steps on a subset S. Its step divides
the batch's mean gradient by the root of its second moment v. While the weights hardly move, gradients stay
what they were at θ, v settles on the per-coordinate mean square of the training gradients (up to a factor),
and the momentum only delays. So to first order

    Δθ ≈ −η T · mean over n in S of  V g_n,        V = diag(v + ε)^(−1/2),
    Δℓ_q ≈ ∇ℓ_qᵀ Δθ  =  −η T · mean over n in S of  ∇ℓ_qᵀ V g_n,

    g_n = E over (t, ε) of the gradient of the *training* loss of clip n,
    ∇ℓ_q = E over (t, ε) of the gradient of the loss that the query is *judged* by.

Four things follow, and the paper's estimator does otherwise in each:

1. *Two objectives.* Training minimises the clip's plain loss; only the query's loss is a matter of choice.
   The clip's gradient is plain, the query's is masked.
2. *Expectations.* One (t, ε) is one sample of g_n and of ∇ℓ_q, and a noisy one. Draws are averaged before
   the product. The noises of training and of judging are independent, so E g_nᵀ V E ∇ℓ_q is wanted, while
   products at one shared (t, ε) add Cov(g_n, ∇ℓ_q): how alike the two respond to the same noise. With K
   draws on both sides that term is left with the weight 1/K.
3. *The optimiser's metric.* Without V a few coordinates with large gradients have all the say. V needs the
   whole gradient, so it is applied before the projection, by its root on both sides.
4. *Sums.* Training adds gradients, it does not add unit vectors. A cosine forgets which clips push hard;
   it also keeps such clips from being chosen for every query.

`effect` is that sum to the letter. What predicts a loss best is not what finds the same kind of motion best:
a plain gradient is also about look. `motion-effect` weighs the clip's loss by W̃ + 0.3 and takes the cosine,
so it gives some of the prediction for the agreement in motion. Measured in docs/results/estimators.

Curvature (`ridge`) is for features without V: (ΦᵀΦ/N + λI)⁻¹ in feature space, as TRAK does it, is what a
damped Newton step with the empirical Fisher matrix in place of the Hessian would make of g_n.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from motive.errors import UserError

MOTION_FLOOR = 0.3  # of `motion-effect`; chosen on a pilot corpus, see docs/results/estimators
RIDGE = 10.0  # λ as a multiple of the mean diagonal of ΦᵀΦ/N over its non-zero directions

Geometry = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Side:
    """Whose gradient one side of the product is.

    floor: the loss is weighed by W̃ + floor: 0 is the paper's motion-weighted loss; None is no mask, the
        plain loss that training minimises.
    draws: (t, ε) that the gradient is averaged over; 1 is the paper's single one.
    """

    floor: float | None
    draws: int = 1


@dataclass(frozen=True)
class Estimator:
    """One way from gradients to influence.

    clips, queries: whose gradients.
    preconditioned: each coordinate is multiplied by (v + ε)^(−1/4) before the projection.
    units: each draw's gradient is normalised before the draws are averaged, as the paper does.
    geometry: how a query's feature and a clip's make a score.
    """

    name: str
    clips: Side
    queries: Side
    preconditioned: bool
    units: bool
    geometry: Geometry

    @property
    def passes(self) -> tuple[int, int]:
        """Forward and backward passes for each clip, and for each query."""
        return self.clips.draws, self.queries.draws

    @property
    def bounded(self) -> bool:
        """Whether scores lie in -1..1; others have the scale of the gradients."""
        return self.geometry in (cosine, centred_cosine)

    def as_text(self, score: float, digits: int) -> str:
        """A score in words' place: so many decimals, or significant digits where scores have no scale."""
        return f"{score:.{digits}{'f' if self.bounded else 'g'}}"

    def scores(self, queries_qd: np.ndarray, clips_nd: np.ndarray) -> np.ndarray:
        """Influence `(Q, N)` float64 from the averaged features of both sides (`averaged`)."""
        return self.geometry(queries_qd.astype(np.float64), clips_nd.astype(np.float64))


def averaged(draws_knd: np.ndarray, *, units: bool = False) -> np.ndarray:
    """The mean over draws of each clip's features, `(N, d)` float64.

    units: of unit vectors; a gradient of zero stays zero.
    """
    draws = draws_knd.astype(np.float64)
    return (normalised(draws) if units else draws).mean(0)


def with_floor(masked_nd: np.ndarray, plain_nd: np.ndarray, floor: float | None) -> np.ndarray:
    """The features of the loss weighed by W̃ + floor, of those weighed by W̃ and by 1.

    Exact: the loss is linear in its weights, and so are gradient, scaling and projection. In a run the
    weights are in the loss, and it costs one pass.
    """
    return plain_nd if floor is None else masked_nd + floor * plain_nd


def dot(queries_qd: np.ndarray, clips_nd: np.ndarray) -> np.ndarray:
    """qᵀc: the effect of a step along the clip's gradient."""
    return queries_qd @ clips_nd.T


def cosine(queries_qd: np.ndarray, clips_nd: np.ndarray) -> np.ndarray:
    """The paper's geometry. A feature of zero scores 0 with everything."""
    return normalised(queries_qd) @ normalised(clips_nd).T


def centred_cosine(queries_qd: np.ndarray, clips_nd: np.ndarray) -> np.ndarray:
    """The cosine after the mean unit feature of the clips was taken from both sides.

    What all clips have in common says nothing of which to choose. A feature of zero scores 0.
    """
    queries, clips = normalised(queries_qd), normalised(clips_nd)
    moving = clips.any(axis=1)
    mean = clips[moving].mean(0) if moving.any() else np.zeros(clips.shape[1])
    scores = cosine(queries - mean, clips - mean)
    return scores * np.outer(queries.any(axis=1), moving)


def ridge(queries_qd: np.ndarray, clips_nd: np.ndarray, damping: float = RIDGE) -> np.ndarray:
    """qᵀ (ΦᵀΦ/N + λI)⁻¹ c, by the N × N dual.

    damping: λ as a multiple of the mean non-zero eigenvalue, trace(ΦΦᵀ/N) / min(N, d); large is `dot`, up
        to a factor.

    With K = ΦΦᵀ/N and Woodbury's identity it is λ⁻¹ (qᵀc − (Φq/√N)ᵀ (K + λI)⁻¹ (Φc/√N)); as c runs over
    the rows of Φ, that is qᵀΦᵀ (K + λI)⁻¹.
    """
    count = len(clips_nd)
    gram = clips_nd @ clips_nd.T / count
    strength = damping * np.trace(gram) / min(clips_nd.shape)
    if strength <= 0:
        return np.zeros((len(queries_qd), count))
    return np.linalg.solve(gram + strength * np.eye(count), clips_nd @ queries_qd.T).T


def normalised(features: np.ndarray) -> np.ndarray:
    """Unit vectors along the last axis; zero stays zero."""
    lengths = np.linalg.norm(features, axis=-1, keepdims=True)
    return np.divide(features, lengths, out=np.zeros_like(features), where=lengths > 0)


MASKED, PLAIN = 0.0, None

ESTIMATORS = {
    estimator.name: estimator
    for estimator in (
        Estimator("paper", Side(MASKED), Side(MASKED), False, True, cosine),
        Estimator("no-mask", Side(PLAIN), Side(PLAIN), False, True, cosine),
        Estimator("centred", Side(MASKED), Side(MASKED), False, True, centred_cosine),
        Estimator("ridge", Side(PLAIN, 16), Side(MASKED, 32), False, False, ridge),
        Estimator("effect", Side(PLAIN, 16), Side(MASKED, 32), True, False, dot),
        Estimator("motion-effect", Side(MOTION_FLOOR, 16), Side(MASKED, 32), True, False, cosine),
    )
}
"""By name. `paper` is the default; `effect` predicts a training's effect best, `motion-effect` also finds
the query's motion."""


def estimator_named(name: str) -> Estimator:
    """The estimator of this name.

    Raises UserError when there is none.
    """
    if name not in ESTIMATORS:
        raise UserError(f"there is no estimator '{name}': use {', '.join(ESTIMATORS)}")
    return ESTIMATORS[name]
