"""The zoo's motions: where every piece of the object is, frame by frame.

A motion is a list of pieces, each an affine map per frame from the object's own coordinates
(the shape lies within [-1, 1]²) to scene pixels, x to the right and y down. Only `explode` has
more than one piece. The camera is a further affine map per frame, from scene to screen, drawn
independently, so that any motion can be filmed by any camera.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SIZE = 64  # frames are SIZE × SIZE pixels
FLOOR = 56.0  # where things rest, in scene pixels

PAPER_MOTIONS = (
    "compress",
    "bounce",
    "roll",
    "explode",
    "float",
    "free_fall",
    "slide",
    "spin",
    "stretch",
    "swing",
)
OTHER_KINDS = ("static", "camera_pan", "camera_zoom", "jitter")
KINDS = PAPER_MOTIONS + OTHER_KINDS
CAMERAS = ("none", "pan", "zoom", "jitter")
_CAMERA_OF_KIND = {"camera_pan": "pan", "camera_zoom": "zoom", "jitter": "jitter"}

Rng = np.random.Generator


@dataclass(frozen=True)
class Piece:
    """One rigid or stretching part of the object.

    affine_f23: object coordinates to scene pixels, per frame.
    cell: the part of the object's [-1, 1]² square that this piece is (x0, y0, x1, y1).
    """

    affine_f23: np.ndarray
    cell: tuple[float, float, float, float] = (-2.0, -2.0, 2.0, 2.0)


def affine(
    x: np.ndarray, y: np.ndarray, angle: np.ndarray, sx: np.ndarray, sy: np.ndarray
) -> np.ndarray:
    """Scale by (sx, sy), then rotate by `angle` radians, then move to (x, y); arrays of frames."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack(
        [np.stack([cos * sx, -sin * sy, x], -1), np.stack([sin * sx, cos * sy, y], -1)], -2
    )


def _rise(frames: int) -> np.ndarray:
    """From 0 to 1 over the clip, starting and ending at rest."""
    u = np.linspace(0.0, 1.0, frames)
    return u * u * (3 - 2 * u)


def _place(frames: int, radius: float, **moves: np.ndarray | float) -> list[Piece]:
    """One piece; what `moves` leaves out rests in the middle of the frame."""
    parts = {"x": SIZE / 2, "y": SIZE / 2, "angle": 0.0, "sx": 1.0, "sy": 1.0, **moves}
    x, y, angle, sx, sy = (np.broadcast_to(v, (frames,)).astype(float) for v in parts.values())
    return [Piece(affine(x, y, angle, sx * radius, sy * radius))]


def _travel(rng: Rng, frames: int, radius: float) -> np.ndarray:
    """Signed distance along a straight line through the middle, at constant speed, inside the frame."""
    room = SIZE - 2 * radius
    length = min(rng.uniform(1.2, 2.4) * (frames - 1), room)
    return rng.choice([-1.0, 1.0]) * np.linspace(-length / 2, length / 2, frames)


def _compress(rng: Rng, frames: int, radius: float) -> list[Piece]:
    sy = 1 - rng.uniform(0.5, 0.65) * _rise(frames)
    sx = 1 + rng.uniform(0.0, 0.25) * _rise(frames)
    return _place(frames, radius, x=rng.uniform(20, 44), y=FLOOR - radius * sy, sx=sx, sy=sy)


def _stretch(rng: Rng, frames: int, radius: float) -> list[Piece]:
    sx = 1 + rng.uniform(0.7, 1.2) * _rise(frames)
    sy = 1 - rng.uniform(0.0, 0.2) * _rise(frames)
    return _place(frames, radius, y=rng.uniform(20, 44), sx=sx, sy=sy)


def _bounce(rng: Rng, frames: int, radius: float) -> list[Piece]:
    f = np.arange(frames)
    height = rng.uniform(18, 28) * np.abs(np.sin(np.pi * (f / rng.uniform(8, 13) + rng.uniform())))
    return _place(frames, radius, x=rng.uniform(18, 46), y=FLOOR - radius - height)


def _roll(rng: Rng, frames: int, radius: float) -> list[Piece]:
    distance = _travel(rng, frames, radius)
    return _place(frames, radius, x=SIZE / 2 + distance, y=FLOOR - radius, angle=distance / radius)


def _slide(rng: Rng, frames: int, radius: float) -> list[Piece]:
    distance, heading = _travel(rng, frames, radius), rng.uniform(-0.3, 0.3)
    return _place(
        frames,
        radius,
        x=SIZE / 2 + distance * np.cos(heading),
        y=rng.uniform(24, 44) + distance * np.sin(heading),
        angle=rng.uniform(-0.5, 0.5),
    )


def _float(rng: Rng, frames: int, radius: float) -> list[Piece]:
    f = np.arange(frames)
    sway = 2 * np.pi * (f / rng.uniform(14, 22) + rng.uniform())
    rise = min(rng.uniform(0.5, 0.9) * (frames - 1), 24.0)
    return _place(
        frames,
        radius,
        x=rng.uniform(24, 40) + rng.uniform(3, 6) * np.sin(sway),
        y=SIZE / 2 + np.linspace(rise / 2, -rise / 2, frames),
        angle=rng.uniform(0.05, 0.2) * np.sin(sway),
    )


def _free_fall(rng: Rng, frames: int, radius: float) -> list[Piece]:
    fall = np.arange(frames) / (rng.uniform(0.8, 1.1) * (frames - 1))
    top = radius * rng.uniform(0.3, 1.0)
    y = np.minimum(top + (FLOOR - radius - top) * fall**2, FLOOR - radius)
    return _place(frames, radius, x=rng.uniform(18, 46), y=y, angle=rng.uniform(-0.5, 0.5))


def _spin(rng: Rng, frames: int, radius: float) -> list[Piece]:
    speed = rng.choice([-1.0, 1.0]) * rng.uniform(0.15, 0.35)
    return _place(
        frames,
        radius,
        x=rng.uniform(20, 44),
        y=rng.uniform(20, 44),
        angle=speed * np.arange(frames),
    )


def _swing(rng: Rng, frames: int, radius: float) -> list[Piece]:
    swing = 2 * np.pi * (np.arange(frames) / rng.uniform(14, 22) + rng.uniform())
    angle = rng.uniform(0.5, 0.9) * np.cos(swing)
    length, pivot_x, pivot_y = rng.uniform(26, 34), rng.uniform(26, 38), rng.uniform(2, 10)
    return _place(
        frames,
        radius,
        x=pivot_x + length * np.sin(angle),
        y=pivot_y + length * np.cos(angle),
        angle=-angle,
    )


def _explode(rng: Rng, frames: int, radius: float) -> list[Piece]:
    x, y = rng.uniform(24, 40), rng.uniform(24, 40)
    since = np.maximum(np.arange(frames) - rng.uniform(0.1, 0.3) * frames, 0.0)
    # Fragments leave the frame's middle at a speed that keeps most of them in sight to the end.
    speed = rng.uniform(14, 24) / (0.8 * frames) * 1.4
    edges = np.linspace(-1, 1, 4)
    pieces = []
    for i in range(3):
        for j in range(3):
            cell = (edges[i], edges[j], edges[i + 1], edges[j + 1])
            middle = np.array([(cell[0] + cell[2]) / 2, (cell[1] + cell[3]) / 2])
            away = middle + rng.normal(0, 0.25, 2)
            turn = rng.normal(0, 0.12) * since
            # Turn about the fragment's own middle, not about the object's.
            around = affine(np.zeros(frames), np.zeros(frames), turn, *np.full((2, frames), radius))
            stay = np.array([x, y]) + radius * middle - around[:, :, :2] @ middle
            around[:, :, 2] = stay + speed * since[:, None] * away
            pieces.append(Piece(around, cell))
    return pieces


def _static(rng: Rng, frames: int, radius: float) -> list[Piece]:
    return _place(frames, radius, x=rng.uniform(18, 46), y=rng.uniform(18, 46))


_MOTIONS: dict[str, Callable[[Rng, int, float], list[Piece]]] = {
    "compress": _compress,
    "bounce": _bounce,
    "roll": _roll,
    "explode": _explode,
    "float": _float,
    "free_fall": _free_fall,
    "slide": _slide,
    "spin": _spin,
    "stretch": _stretch,
    "swing": _swing,
}


def object_pieces(kind: str, rng: Rng, frames: int, radius: float) -> list[Piece]:
    """The pieces of an object of `radius` pixels that moves as `kind` for `frames` frames."""
    return _MOTIONS.get(kind, _static)(rng, frames, radius)


def camera_of(kind: str) -> str:
    """The camera that a kind implies: `none` for everything but the three camera kinds."""
    return _CAMERA_OF_KIND.get(kind, "none")


def camera_affine(camera: str, rng: Rng, frames: int) -> np.ndarray:
    """Scene to screen, `(frames, 2, 3)`; the first frame is always the identity but for jitter."""
    zeros, ones, f = np.zeros(frames), np.ones(frames), np.arange(frames)
    if camera == "pan":
        heading = rng.uniform(0, 2 * np.pi)
        shift = min(rng.uniform(0.8, 2.0) * (frames - 1), 40.0) * f / (frames - 1)
        return affine(shift * np.cos(heading), shift * np.sin(heading), zeros, ones, ones)
    if camera == "zoom":
        scale = np.exp(rng.choice([-1.0, 1.0]) * rng.uniform(0.25, 0.5) * f / (frames - 1))
        centre = SIZE / 2 * (1 - scale)
        return affine(centre, centre, zeros, scale, scale)
    if camera == "jitter":
        shake = rng.normal(0, rng.uniform(0.8, 1.6), (2, frames))
        return affine(shake[0], shake[1], zeros, ones, ones)
    return affine(zeros, zeros, zeros, ones, ones)
