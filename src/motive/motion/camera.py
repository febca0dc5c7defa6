"""Camera motion: one global model per frame, fitted robustly to the motion field.

The model maps each pixel to where the field says that its content is in the other frame: the current
frame for the convention `from_first`, the previous one for `from_previous`. What the model says is the
camera's part of the field, and the rest is the objects' own motion.

The fit is a consensus search over minimal samples (MSAC: Torr and Zisserman, 2000), then reweighted
least squares with Geman-McClure weights. The samples are drawn from a fixed seed for every frame, so
that equal fields have equal cameras.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, get_args

import cv2
import numpy as np

from motive.errors import UserError
from motive.motion.field import MotionField

CameraModel = Literal["translation", "similarity", "homography"]

# A pixel agrees with the camera when it is off by less than about TOLERANCE pixels plus SLACK of the
# way that it went: flow errs by parts of a pixel where things are slow, by parts of the way where fast.
TOLERANCE, SLACK = 0.5, 0.05
POINTS = 1024  # pixels of a frame that are fitted to
HYPOTHESES = 128
REFINEMENTS = 8
MIN_POINTS = 16  # with fewer confident pixels there is no telling
MIN_CONFIDENT = 0.05  # nor with a smaller share of the frame's visibility × confidence
MIN_SUPPORT = 0.3  # of the confident pixels must agree with a camera
MIN_GAIN = 0.02  # in cost, 0..1, over a camera that stands still

_Map = np.ndarray  # (3, 3), float64, in pixels
_STILL = np.eye(3)
_STILL.setflags(write=False)


@dataclass(frozen=True)
class CameraMotion:
    """The camera of a clip.

    maps_f33: pixels (x, y, 1) of frame f to where the still world's content of that pixel is in the
        other frame; the identity for a frame without camera motion.
    support_f: share of the frame's visibility × confidence that agrees with the map, 0..1.
    """

    maps_f33: np.ndarray
    support_f: np.ndarray

    def part(self, field: MotionField) -> MotionField:
        """The camera's part of `field`, in its convention, with its visibility and confidence."""
        return replace(
            field, displacement_fhw2=np.stack([camera for camera, _ in self.split(field)])
        )

    def residual(self, field: MotionField) -> MotionField:
        """What the camera leaves of `field`: the objects' own motion."""
        return replace(field, displacement_fhw2=np.stack([own for _, own in self.split(field)]))

    def split(self, field: MotionField) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Of each frame, `(H, W, 2)`: the camera's part of the displacement, and what it leaves of it."""
        # Late, since it loads numba, which those who only name a tracker need not wait for.
        from motive.motion.field_kernel import put_steps

        for map_33, moves_hw2 in zip(self.maps_f33, field.displacement_fhw2, strict=True):
            camera = np.zeros(moves_hw2.shape, np.float32)
            if not _stands(map_33):
                put_steps(map_33, _sign(field), camera)
            yield camera, moves_hw2 - camera


def estimate_camera(field: MotionField, model: CameraModel = "similarity") -> CameraMotion:
    """The camera that moves most of each frame, each frame by itself.

    model: `translation` (2 numbers), `similarity` (shift, turn and zoom: 4) or `homography` (8).

    A frame has a camera that stands still (the identity, so all motion is the objects') when

    - it is frame 0, which has no motion by either convention;
    - fewer than 16 pixels, or less than 5% of visibility × confidence, can be relied on;
    - no map agrees with at least 30% of the confident pixels: everything goes its own way;
    - no map explains the field clearly better than standing still: nothing moves, or little of the
      frame, or (flow over a surface without texture) the tracker saw nothing move.

    Raises UserError for a model that is not known.
    """
    if model not in get_args(CameraModel):
        raise UserError(
            f"there is no camera model '{model}': use translation, similarity or homography"
        )
    frames = len(field.displacement_fhw2)
    maps, support = np.tile(np.eye(3), (frames, 1, 1)), np.ones(frames)
    for f in range(1, frames):
        trust_hw = field.visibility_fhw[f] * field.confidence_fhw[f]
        maps[f], support[f] = _fit_frame(field.displacement_fhw2[f], _sign(field), trust_hw, model)
    return CameraMotion(maps, support)


def fit_pair(
    moves_hw2: np.ndarray, trust_hw: np.ndarray, model: CameraModel = "similarity"
) -> np.ndarray | None:
    """The map of one frame, `(3, 3)`, by the rules of `estimate_camera`; None is the camera that stands.

    moves_hw2: from each pixel to where its content is in the other frame, in pixels.
    trust_hw: visibility × confidence, 0..1.
    """
    map_33, _ = _fit_frame(moves_hw2, 1.0, trust_hw, model)
    return None if _stands(map_33) else map_33


def apply_map(map_33: np.ndarray, points_hw2: np.ndarray) -> np.ndarray:
    """Where a map leads, in pixels, float32."""
    return cv2.perspectiveTransform(points_hw2.astype(np.float32, copy=False), map_33)


def camera_share(field: MotionField, residual: MotionField) -> float:
    """Share of the clip's squared motion that the camera explains, 0..1.

    1 − Σ t ‖residual‖² / Σ t ‖displacement‖² with t = visibility × confidence; 0 without motion.
    """
    trust = field.visibility_fhw * field.confidence_fhw
    return explained_share(field.magnitude_fhw(), residual.magnitude_fhw(), trust)


def explained_share(whole_fhw: np.ndarray, rest_fhw: np.ndarray, trust_fhw: np.ndarray) -> float:
    """`camera_share` of lengths: of the displacement, and of what the camera leaves of it."""

    def energy(lengths_fhw: np.ndarray) -> float:
        squares = lengths_fhw * lengths_fhw
        squares *= trust_fhw
        return float(squares.sum(dtype=np.float64))

    whole, rest = energy(whole_fhw), energy(rest_fhw)
    return min(1.0, max(0.0, 1 - rest / whole)) if whole > 0 else 0.0


def _sign(field: MotionField) -> float:
    # By flow a pixel of frame f came from where the displacement leads back to.
    return 1.0 if field.convention == "from_first" else -1.0


def _stands(map_33: _Map) -> bool:
    return bool((map_33 == _STILL).all())


def _apply(map_33: _Map, points_n2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where a map leads but for a shift, and the shift: what is added last."""
    if map_33[2].tolist() == [0, 0, 1]:
        return points_n2 @ map_33[:2, :2].T, map_33[:2, 2]
    there = points_n2 @ map_33[:, :2].T + map_33[:, 2]
    return there[..., :2] / there[..., 2:], np.zeros(2)


def _fit_frame(
    moves_hw2: np.ndarray, sign: float, trust_hw: np.ndarray, model: CameraModel
) -> tuple[_Map, float]:
    """The frame's map and its support; `sign` turns the displacement to where content is."""
    # Late, as in `CameraMotion.split`.
    from motive.motion.camera_kernel import choose, compare

    trust_hw, moves_hw2 = np.ascontiguousarray(trust_hw), np.ascontiguousarray(moves_hw2)
    points, moves, trust, total, trusted = choose(trust_hw, moves_hw2, sign, POINTS)
    if total < MIN_CONFIDENT * trust_hw.size or trusted < MIN_POINTS:
        return _STILL, 0.0
    trust /= trust.sum()
    per_tolerance = (TOLERANCE + SLACK * np.hypot(moves[:, 0], moves[:, 1])) ** -2
    there = points + moves

    def judge(map_33: _Map) -> tuple[float, float]:
        """Cost and support, each 0..1."""
        off, agrees = compare(*_apply(map_33, points), there, per_tolerance)
        return float(trust @ off), float(trust @ agrees)

    still_cost, still_support = judge(_STILL)
    if still_cost < MIN_GAIN:
        return _STILL, still_support  # no camera could gain so much
    best = _search(points, moves, trust, per_tolerance, model)
    cost, support = judge(best)
    if support < MIN_SUPPORT or cost > still_cost - MIN_GAIN:
        return _STILL, still_support
    return best, support


def _search(
    points: np.ndarray,
    moves: np.ndarray,
    trust: np.ndarray,
    per_tolerance: np.ndarray,
    model: CameraModel,
) -> _Map:
    """The map that most points agree with, and by least squares."""
    from motive.motion.camera_kernel import refine

    there = points + moves
    # A homography is refined from the similarity that is found first.
    rounds = REFINEMENTS // 2 if model == "homography" else REFINEMENTS
    start = _consensus(points, moves, trust, per_tolerance, model)
    best = _matrix(
        refine(start, points.T.copy(), there.T.copy(), per_tolerance, trust,
               model != "translation", rounds)
    )  # fmt: skip
    for _ in range(REFINEMENTS - rounds):
        places, shift = _apply(best, points)
        off = ((places + shift - there) ** 2).sum(-1) * per_tolerance
        refined = _homography(points, there, trust / (1 + off) ** 2)
        if refined is None or not _sane(refined, points):
            break
        best = refined
    return best


def _matrix(map_4: tuple[float, float, float, float]) -> _Map:
    a, b, c, d = map_4
    return np.array([[a, -b, c], [b, a, d], [0.0, 0.0, 1.0]])


def _sane(map_33: _Map, points_n2: np.ndarray) -> bool:
    """Whether the map is finite and keeps all points in front of the camera."""
    depth = points_n2 @ map_33[2, :2] + map_33[2, 2]
    return bool(np.isfinite(map_33).all() and depth.min() > 0.1 and np.linalg.det(map_33) > 1e-6)


def _consensus(
    points: np.ndarray,
    moves: np.ndarray,
    trust: np.ndarray,
    per_tolerance: np.ndarray,
    model: CameraModel,
) -> tuple[float, float, float, float]:
    """The translation or similarity through one or two points that costs least."""
    from motive.motion.camera_kernel import cheapest, single

    first, second = _pairs(len(points))
    # As complex numbers a similarity is z → z + a z + b.
    z, m = points.view(complex).ravel(), moves.view(complex).ravel()
    near, move = z[first], m[first]
    apart = z[second] - near
    turn = np.zeros(HYPOTHESES, complex)
    if model != "translation":
        np.divide(m[second] - move, apart, out=turn, where=apart != 0)
        # Twice as large or half as large from one frame to the other is no camera.
        turn[np.abs(turn) > 1] = 0
    # The still camera and pure shifts compete as well.
    maps_h2 = np.zeros((1 + 2 * HYPOTHESES, 2), complex)
    maps_h2[1 : 1 + HYPOTHESES, 0] = turn
    maps_h2[1 : 1 + HYPOTHESES, 1] = move - turn * near
    maps_h2[1 + HYPOTHESES :, 1] = move
    maps_h4 = maps_h2.view(float)
    winner = cheapest(maps_h4.astype(np.float32), *single(points, moves, per_tolerance, trust))
    a, b, c, d = maps_h4[winner].tolist()
    return 1 + a, b, c, d


@lru_cache(maxsize=POINTS)
def _pairs(points: int) -> np.ndarray:
    """Which of so many points the hypotheses are made of, `(2, HYPOTHESES)`: the same for each frame."""
    pairs = np.random.default_rng(0).integers(0, points, (2, HYPOTHESES))
    pairs.setflags(write=False)
    return pairs


def _homography(points: np.ndarray, there: np.ndarray, weight: np.ndarray) -> _Map | None:
    """The weighted least-squares map; None when the points do not determine one."""
    total = weight.sum()
    if total <= 0:
        return None
    centre = weight @ points / total
    scale = float(np.sqrt(weight @ ((points - centre) ** 2).sum(-1) / total))
    if scale == 0:
        return None
    near, far = (points - centre) / scale, (there - centre) / scale
    x, y, zero, one = near[:, 0], near[:, 1], np.zeros(len(near)), np.ones(len(near))
    u, v = far[:, 0], far[:, 1]
    rows = np.concatenate(
        [
            np.stack([x, y, one, zero, zero, zero, -u * x, -u * y], -1),
            np.stack([zero, zero, zero, x, y, one, -v * x, -v * y], -1),
        ]
    )
    root = np.sqrt(np.concatenate([weight, weight]))
    found, _, rank, _ = np.linalg.lstsq(
        rows * root[:, None], np.concatenate([u, v]) * root, rcond=1e-10
    )
    if rank < 8:
        return None
    inner = np.append(found, 1.0).reshape(3, 3)
    to_inner = np.array(
        [[1 / scale, 0, -centre[0] / scale], [0, 1 / scale, -centre[1] / scale], [0, 0, 1]]
    )
    whole = np.linalg.inv(to_inner) @ inner @ to_inner
    return whole / whole[2, 2] if abs(whole[2, 2]) > 1e-9 else None
