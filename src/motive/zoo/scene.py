"""One zoo clip: draw a scene, render its frames, and say exactly what moved where."""

from dataclasses import dataclass

import numpy as np

from motive.zoo.appearance import (
    Appearance,
    draw_appearance,
    inside_shape,
    object_color,
    scene_color,
)
from motive.zoo.motions import SIZE, Piece, camera_affine, camera_of, object_pieces

SUPERSAMPLING = 2


@dataclass(frozen=True)
class Scene:
    """Everything that determines a clip.

    pieces: the object's parts, with their motion in the scene.
    camera_f23: scene to screen per frame.
    """

    kind: str
    camera: str
    frames: int
    look: Appearance
    pieces: list[Piece]
    camera_f23: np.ndarray


@dataclass(frozen=True)
class Truth:
    """What really moved, in pixels, x before y.

    from_previous_fhw2: for each pixel of frame f, how far what it shows has come since frame f-1
        (frame 0: zero). The convention of optical flow.
    from_first_fhw2: for each pixel of frame 0, how far what it shows has gone by frame f.
        The convention of a point tracker.
    object_mask_fhw: whether the pixel shows the object.
    camera_f23: screen of frame 0 to screen of frame f, for what does not move by itself.
    """

    from_previous_fhw2: np.ndarray
    from_first_fhw2: np.ndarray
    object_mask_fhw: np.ndarray
    camera_f23: np.ndarray


def draw_scene(
    kind: str, frames: int, *, seed: int, index: int, camera: str | None = None
) -> Scene:
    """The scene of clip `index` of corpus `seed`; the look does not depend on kind or length.

    camera: `pan`, `zoom` or `jitter` adds that camera to any motion; None is the kind's own.

    Raises ValueError for less than two frames: then nothing moves.
    """
    if frames < 2:
        raise ValueError(f"a motion takes at least two frames, not {frames}")
    camera = camera_of(kind) if camera is None else camera
    look = draw_appearance(np.random.default_rng([seed, index, 0]), SIZE)
    rng = np.random.default_rng([seed, index, 1])
    pieces = object_pieces(kind, rng, frames, look.radius)
    lens = camera_affine(camera, np.random.default_rng([seed, index, 2]), frames)
    return Scene(kind, camera, frames, look, pieces, lens)


def _compose(outer_f23: np.ndarray, inner_f23: np.ndarray) -> np.ndarray:
    linear = outer_f23[..., :2] @ inner_f23[..., :2]
    shift = outer_f23[..., :2] @ inner_f23[..., 2:] + outer_f23[..., 2:]
    return np.concatenate([linear, shift], -1)


def _invert(map_f23: np.ndarray) -> np.ndarray:
    linear = np.linalg.inv(map_f23[..., :2])
    return np.concatenate([linear, -linear @ map_f23[..., 2:]], -1)


def _apply(map_23: np.ndarray, points_hw2: np.ndarray) -> np.ndarray:
    return points_hw2 @ map_23[:, :2].T + map_23[:, 2]


def _grid(per_pixel: int) -> np.ndarray:
    """Sample positions `(h, w, 2)`, x before y; pixel (0, 0) covers [-0.5, 0.5]²."""
    axis = (np.arange(SIZE * per_pixel) + 0.5) / per_pixel - 0.5
    return np.stack(np.meshgrid(axis, axis), -1)


def _covered(scene: Scene, piece: Piece, uv: np.ndarray) -> np.ndarray:
    u, v = uv[..., 0], uv[..., 1]
    x0, y0, x1, y1 = piece.cell
    inside = (u >= x0) & (u < x1) & (v >= y0) & (v < y1)
    return inside & inside_shape(scene.look.shape, u, v)


def render_frames(scene: Scene) -> np.ndarray:
    """`(frames, 64, 64, 3)` uint8 RGB, antialiased by supersampling."""
    grid = _grid(SUPERSAMPLING)
    to_scene = _invert(scene.camera_f23)
    to_object = [_invert(_compose(scene.camera_f23, p.affine_f23)) for p in scene.pieces]
    frames = []
    for f in range(scene.frames):
        points = _apply(to_scene[f], grid)
        color = scene_color(scene.look, points[..., 0], points[..., 1])
        for piece, inverse in zip(scene.pieces, to_object, strict=True):
            uv = _apply(inverse[f], grid)
            covered = _covered(scene, piece, uv)
            paint = object_color(scene.look, uv[..., 0], uv[..., 1])
            color = np.where(covered[..., None], paint, color)
        fine = color.reshape(SIZE, SUPERSAMPLING, SIZE, SUPERSAMPLING, 3).mean((1, 3))
        frames.append(np.round(fine * 255).astype(np.uint8))
    return np.stack(frames)


def true_motion(scene: Scene) -> Truth:
    """The exact displacement of what each pixel centre shows, in both conventions."""
    grid, lens = _grid(1), scene.camera_f23
    # The background is layer 0, then the pieces in drawing order: later ones cover earlier ones.
    maps = [lens] + [_compose(lens, p.affine_f23) for p in scene.pieces]
    inverses = [_invert(m) for m in maps]
    layers = np.zeros((scene.frames, SIZE, SIZE), np.int64)
    for i, piece in enumerate(scene.pieces, start=1):
        for f in range(scene.frames):
            layers[f][_covered(scene, piece, _apply(inverses[i][f], grid))] = i
    previous = np.zeros((scene.frames, SIZE, SIZE, 2))
    first = np.zeros_like(previous)
    for i, (forward, inverse) in enumerate(zip(maps, inverses, strict=True)):
        start = _apply(inverse[0], grid)
        for f in range(1, scene.frames):
            here = layers[f] == i
            came_from = _apply(forward[f - 1], _apply(inverse[f], grid[here]))
            previous[f][here] = grid[here] - came_from
            there = layers[0] == i
            first[f][there] = _apply(forward[f], start[there]) - grid[there]
    return Truth(previous, first, layers > 0, _compose(lens, _invert(lens)[:1]))
