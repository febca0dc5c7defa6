"""Every kind of motion does what its name says, in numbers taken from its affine maps."""

import numpy as np
import pytest

from motive.zoo.motions import (
    CAMERAS,
    FLOOR,
    KINDS,
    OTHER_KINDS,
    PAPER_MOTIONS,
    SIZE,
    Piece,
    affine,
    camera_affine,
    camera_of,
    object_pieces,
)

RADIUS = 11.0
SEEDS = range(12)
LENGTHS = (9, 17, 33)


def pieces_of(kind: str, seed: int, frames: int = 17) -> list[Piece]:
    return object_pieces(kind, np.random.default_rng(seed), frames, RADIUS)


class Track:
    """Centre, angle and scales of a single piece, frame by frame, read back from its maps."""

    def __init__(self, kind: str, seed: int, frames: int = 17) -> None:
        (piece,) = pieces_of(kind, seed, frames)
        maps = piece.affine_f23
        assert maps.shape == (frames, 2, 3)
        self.centre = maps[:, :, 2]
        self.x, self.y = self.centre.T
        self.angle = np.unwrap(np.arctan2(maps[:, 1, 0], maps[:, 0, 0]))
        self.sx = np.linalg.norm(maps[:, :, 0], axis=1) / RADIUS
        self.sy = np.linalg.norm(maps[:, :, 1], axis=1) / RADIUS

    def rigid(self) -> bool:
        return np.allclose(self.sx, 1) and np.allclose(self.sy, 1)


def test_the_kinds_are_the_papers_ten_and_four_others() -> None:
    assert len(set(KINDS)) == 14
    assert len(PAPER_MOTIONS) == 10
    assert set(OTHER_KINDS) == {"static", "camera_pan", "camera_zoom", "jitter"}


@pytest.mark.parametrize("frames", LENGTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_motion_is_finite_repeatable_and_begins_in_sight(kind: str, frames: int) -> None:
    for seed in SEEDS:
        pieces = pieces_of(kind, seed, frames)
        again = pieces_of(kind, seed, frames)
        assert len(pieces) == (9 if kind == "explode" else 1)
        for piece, same in zip(pieces, again, strict=True):
            assert np.isfinite(piece.affine_f23).all()
            assert np.array_equal(piece.affine_f23, same.affine_f23)
        centres = np.stack([p.affine_f23[:, :, 2] for p in pieces])
        assert ((centres[:, 0] > 0) & (centres[:, 0] < SIZE)).all()
        if kind != "explode":
            assert ((centres > 0) & (centres < SIZE)).all()
    assert len({pieces_of(kind, seed, frames)[0].affine_f23.tobytes() for seed in SEEDS}) > 1


@pytest.mark.parametrize("seed", SEEDS)
def test_compress_flattens_on_the_floor(seed: int) -> None:
    t = Track("compress", seed)
    assert (np.diff(t.sy) < 1e-12).all()
    assert t.sy[0] == 1
    assert t.sy[-1] <= 0.5
    assert np.allclose(t.y + RADIUS * t.sy, FLOOR)
    assert np.allclose(t.angle, 0)
    assert np.ptp(t.x) == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_stretch_widens_in_place(seed: int) -> None:
    t = Track("stretch", seed)
    assert (np.diff(t.sx) > -1e-12).all()
    assert t.sx[-1] >= 1.7
    assert (t.sy <= 1 + 1e-12).all()
    assert np.ptp(t.x) == np.ptp(t.y) == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_bounce_goes_up_and_down_above_the_floor(seed: int) -> None:
    t = Track("bounce", seed, 33)
    height = FLOOR - RADIUS - t.y
    assert (height >= -1e-9).all()
    assert height.max() > 15
    assert np.ptp(t.x) == 0
    directions = np.sign(np.diff(t.y))
    assert (np.diff(directions) != 0).sum() >= 4  # 33 frames hold at least two bounces
    assert t.rigid()


@pytest.mark.parametrize("seed", SEEDS)
def test_roll_turns_by_what_it_travels(seed: int) -> None:
    t = Track("roll", seed)
    travelled = t.x - t.x[0]
    assert np.allclose((t.angle - t.angle[0]) * RADIUS, travelled)
    assert abs(travelled[-1]) > 10
    assert np.allclose(t.y, FLOOR - RADIUS)
    assert t.rigid()


@pytest.mark.parametrize("seed", SEEDS)
def test_slide_is_straight_and_steady_and_does_not_turn(seed: int) -> None:
    t = Track("slide", seed)
    steps = np.diff(t.centre, axis=0)
    assert np.allclose(steps, steps[0])
    assert 0.9 < np.linalg.norm(steps[0]) < 2.5
    assert abs(steps[0, 1]) < abs(steps[0, 0])
    assert np.ptp(t.angle) < 1e-12
    assert t.rigid()


@pytest.mark.parametrize("seed", SEEDS)
def test_float_rises_slowly_and_sways(seed: int) -> None:
    t = Track("float", seed, 33)
    assert (np.diff(t.y) < 0).all()
    assert np.diff(t.y).min() > -1
    assert np.ptp(t.x) > 4
    assert t.rigid()


@pytest.mark.parametrize("seed", SEEDS)
def test_free_fall_accelerates_down_to_the_floor(seed: int) -> None:
    t = Track("free_fall", seed)
    assert (t.y <= FLOOR - RADIUS + 1e-9).all()
    falling = t.y < FLOOR - RADIUS - 1e-9
    steps = np.diff(t.y[falling])
    acceleration = np.diff(steps)
    assert len(acceleration) >= 8
    assert np.allclose(acceleration, acceleration[0])
    assert acceleration[0] > 0
    assert steps[0] == pytest.approx(acceleration[0] / 2)  # it starts at rest
    assert np.ptp(t.x) == 0
    assert np.ptp(t.angle) < 1e-12


@pytest.mark.parametrize("seed", SEEDS)
def test_spin_turns_steadily_about_its_centre(seed: int) -> None:
    t = Track("spin", seed)
    assert np.ptp(t.centre, axis=0).max() == 0
    turns = np.diff(t.angle)
    assert np.allclose(turns, turns[0])
    assert 0.15 <= abs(turns[0]) <= 0.35
    assert t.rigid()


@pytest.mark.parametrize("seed", SEEDS)
def test_swing_hangs_from_a_fixed_pivot(seed: int) -> None:
    t = Track("swing", seed, 33)
    # The object's own downward axis lies along the rod: centre = pivot + length · axis.
    axis = np.stack([-np.sin(t.angle), np.cos(t.angle)], 1)
    spread = axis - axis.mean(0)
    length = (spread * t.centre).sum() / (spread**2).sum()
    pivot = t.centre - length * axis
    assert np.allclose(pivot, pivot[0], atol=1e-9)
    assert 26 <= length <= 34
    assert pivot[0, 1] < t.y.min()
    assert np.ptp(t.angle) > 0.9
    assert (np.diff(np.sign(np.diff(t.angle))) != 0).any()


@pytest.mark.parametrize("seed", SEEDS)
def test_explode_drives_whole_fragments_apart(seed: int) -> None:
    pieces = pieces_of("explode", seed, 33)
    cells = np.array([p.cell for p in pieces])
    assert np.prod(cells[:, 2:] - cells[:, :2], axis=1).sum() == pytest.approx(4)  # all of [-1, 1]²
    middles = (cells[:, :2] + cells[:, 2:]) / 2
    maps = np.stack([p.affine_f23 for p in pieces])
    at = np.einsum("pfij,pj->pfi", maps[..., :2], middles) + maps[..., 2]
    # In the beginning they are one object.
    whole = at[:, 0] - RADIUS * middles
    assert np.allclose(whole, whole[0])
    away = np.linalg.norm(at - at.mean(0), axis=-1).mean(0)
    still = int(np.flatnonzero(np.diff(away) > 1e-9)[0])
    assert 2 <= still <= 10
    assert (np.diff(away)[still:] > 0).all()
    assert away[-1] > 1.8 * away[0]
    # Fragments turn, but keep their size.
    scale = np.sqrt(np.abs(np.linalg.det(maps[..., :2])))
    assert np.allclose(scale, RADIUS)


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_the_other_kinds_leave_the_object_at_rest(kind: str) -> None:
    (piece,) = pieces_of(kind, 0)
    assert np.array_equal(piece.affine_f23, piece.affine_f23[:1].repeat(17, 0))


def test_each_kind_has_its_camera() -> None:
    cameras = {kind: camera_of(kind) for kind in KINDS}
    moving = {k: c for k, c in cameras.items() if c != "none"}
    assert moving == {"camera_pan": "pan", "camera_zoom": "zoom", "jitter": "jitter"}
    assert set(cameras.values()) == set(CAMERAS)


@pytest.mark.parametrize("frames", LENGTHS)
@pytest.mark.parametrize("seed", SEEDS)
def test_cameras_do_what_they_are_called(seed: int, frames: int) -> None:
    maps = {c: camera_affine(c, np.random.default_rng(seed), frames) for c in CAMERAS}
    identity = np.array([[1.0, 0, 0], [0, 1, 0]])
    assert np.allclose(maps["none"], identity)
    for camera in ("pan", "zoom"):
        assert np.allclose(maps[camera][0], identity)
    steps = np.diff(maps["pan"][:, :, 2], axis=0)
    assert np.allclose(steps, steps[0])
    assert 0.8 <= np.linalg.norm(steps[0]) <= 2.0
    assert np.allclose(maps["pan"][:, :, :2], np.eye(2))
    scale = maps["zoom"][:, 0, 0]
    assert np.allclose(scale[1:] / scale[:-1], scale[1] / scale[0])
    assert 0.25 <= abs(np.log(scale[-1])) <= 0.5
    middle = maps["zoom"][:, :, :2] @ np.full(2, SIZE / 2) + maps["zoom"][:, :, 2]
    assert np.allclose(middle, SIZE / 2)
    assert np.allclose(maps["jitter"][:, :, :2], np.eye(2))
    shake = maps["jitter"][:, :, 2]
    assert 0.2 < shake.std() < 4
    assert len(np.unique(shake)) == 2 * frames


def test_affine_scales_then_turns_then_moves() -> None:
    one = np.ones(1)
    (matrix,) = affine(5 * one, 7 * one, np.pi / 2 * one, 2 * one, 3 * one)
    assert np.allclose(matrix @ [1, 0, 1], [5, 9])  # x, doubled, turned towards y (down)
    assert np.allclose(matrix @ [0, 1, 1], [2, 7])
