"""DIS flow against the zoo's true motion, and on frames that leave it nothing to find."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from motive.clips.decoding import decode_clip
from motive.clips.sampling import FrameSampler
from motive.motion.dis import DisTracker
from motive.motion.field import MotionField
from motive.zoo.motions import PAPER_MOTIONS
from motive.zoo.scene import draw_scene, render_frames, true_motion


@pytest.fixture(scope="module")
def tracker() -> DisTracker:
    return DisTracker()


def assert_sound(field: MotionField, shape_fhw: tuple[int, ...]) -> None:
    assert field.displacement_fhw2.shape == (*shape_fhw, 2)
    assert field.convention == "from_previous"
    for numbers in (field.displacement_fhw2, field.visibility_fhw, field.confidence_fhw):
        assert numbers.dtype == np.float32
        assert np.isfinite(numbers).all()
    for share in (field.visibility_fhw, field.confidence_fhw):
        assert share.shape == shape_fhw
        assert share.min() >= 0
        assert share.max() <= 1
    assert not field.displacement_fhw2[0].any()


def same(one: MotionField, other: MotionField) -> bool:
    return (
        np.array_equal(one.displacement_fhw2, other.displacement_fhw2)
        and np.array_equal(one.visibility_fhw, other.visibility_fhw)
        and np.array_equal(one.confidence_fhw, other.confidence_fhw)
    )


def test_the_flow_is_the_true_displacement_of_what_moves(tracker: DisTracker) -> None:
    errors, backwards, speeds = [], [], []
    for index, kind in enumerate(PAPER_MOTIONS):
        scene = draw_scene(kind, 9, seed=5, index=index)
        field = tracker.track(render_frames(scene))
        assert_sound(field, (9, 64, 64))
        truth = true_motion(scene).from_previous_fhw2
        speed = np.linalg.norm(truth, axis=-1)
        moving = speed > 0.5
        error = np.linalg.norm(field.displacement_fhw2 - truth, axis=-1)[moving]
        # In every clip, half of the moving pixels to better than 60% of their way (spin is the hardest).
        assert np.median(error) < 0.6 * np.median(speed[moving]), kind
        errors.append(error)
        backwards.append(np.linalg.norm(-field.displacement_fhw2 - truth, axis=-1)[moving])
        speeds.append(speed[moving])
    assert np.median(np.concatenate(errors)) < 0.5
    # With the sign turned, or x and y exchanged, it would be as wrong as a clip is fast.
    assert np.median(np.concatenate(backwards)) > 1.5 * np.median(np.concatenate(speeds))


@pytest.mark.parametrize("kind", ["camera_pan", "camera_zoom", "jitter"])
def test_the_flow_follows_the_camera_where_there_is_texture(tracker: DisTracker, kind: str) -> None:
    looks = [draw_scene(kind, 9, seed=5, index=i) for i in range(20)]
    scene = next(s for s in looks if s.look.background == "waves")
    frames, truth = render_frames(scene), true_motion(scene).from_previous_fhw2
    error = np.linalg.norm(tracker.track(frames).displacement_fhw2 - truth, axis=-1)
    speed = np.linalg.norm(truth, axis=-1)
    assert np.median(error[speed > 0.5]) < 0.4


@pytest.mark.parametrize("step", [(2, 0), (0, 2), (-1, 2)])
@pytest.mark.parametrize("size", [24, 64])
def test_x_comes_before_y_and_points_where_things_go(
    tracker: DisTracker, step: tuple[int, int], size: int
) -> None:
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.uniform(0, 255, (96, 96)).astype(np.float32), (0, 0), 2)
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX)
    dx, dy = step
    frames = [
        texture[16 - dy * f : 16 - dy * f + size, 16 - dx * f : 16 - dx * f + size]
        for f in range(3)
    ]
    field = tracker.track(np.stack(frames).astype(np.uint8)[..., None].repeat(3, -1))
    # Frames under 32 pixels are padded; there the flow still has the direction, but less of the length.
    inner = field.displacement_fhw2[1:, 6:-6, 6:-6]
    assert np.abs(np.median(inner, (0, 1, 2)) - step).max() < (0.1 if size == 64 else 0.7)
    if size == 64:  # there and back again is no way: forward and backward flow agree
        assert field.confidence_fhw[1:, 8:-8, 8:-8].min() > 0.8
    came_from_outside = field.visibility_fhw[1] == 0
    # The rim that was out of the frame before is not visible, the middle is.
    assert not came_from_outside[8:-8, 8:-8].any()
    if size == 64:
        rims = {(2, 0): np.s_[16:48, 0], (0, 2): np.s_[0, 16:48], (-1, 2): np.s_[0, 16:48]}
        assert came_from_outside[rims[step]].mean() > 0.7


def test_confidence_is_low_where_forward_and_backward_disagree(tracker: DisTracker) -> None:
    errors, confidences = [], []
    for index, kind in enumerate(("slide", "swing", "free_fall", "bounce")):
        scene = draw_scene(kind, 9, seed=5, index=index)
        field, truth = tracker.track(render_frames(scene)), true_motion(scene).from_previous_fhw2
        errors.append(np.linalg.norm(field.displacement_fhw2 - truth, axis=-1)[1:].ravel())
        confidences.append(field.confidence_fhw[1:].ravel())
    error, confidence = np.concatenate(errors), np.concatenate(confidences)
    assert (confidence < 0.1).sum() > 100
    assert error[confidence < 0.1].mean() > 2.5 * error[confidence > 0.9].mean()
    noise = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3)).astype(np.uint8)
    assert tracker.track(noise).confidence_fhw[1].mean() < 0.5


def test_a_surface_without_texture_stays_where_it_is(tracker: DisTracker) -> None:
    """A single search spreads the object's motion over it, and takes its own for the camera's."""
    scenes = [draw_scene("slide", 9, seed=5, index=i, camera="none") for i in range(40)]
    scene = next(s for s in scenes if s.look.background == "plain")
    frames, truth = render_frames(scene), true_motion(scene)
    away = np.ones(truth.object_mask_fhw.shape, bool)
    reach = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (33, 33))
    for f in range(1, 9):
        shown = truth.object_mask_fhw[f - 1] | truth.object_mask_fhw[f]
        away[f] = cv2.dilate(shown.astype(np.uint8), reach) == 0
    assert away[1:].mean() > 0.05
    field = tracker.track(frames)
    assert not field.displacement_fhw2[away].any()
    moving = truth.object_mask_fhw[1:]
    assert np.linalg.norm(field.displacement_fhw2[1:][moving], axis=-1).mean() > 1
    back, _ = tracker._search(*(cv2.cvtColor(frames[f], cv2.COLOR_RGB2GRAY) for f in (5, 4)))
    assert np.abs(back[away[5]]).max() > 0.3


def spotted(spots: int, step: int, away: int) -> np.ndarray:
    """Four frames of a plain wall with spots on it that goes by, behind a textured square: uint8.

    step: pixels per frame of the wall to the right; away: of the square downwards, besides.
    """
    rng = np.random.default_rng(3)
    wall = np.full((96, 128), 90, np.uint8)
    for x, y in zip(np.linspace(24, 104, spots), [20, 70, 30, 76, 24, 64], strict=False):
        cv2.circle(wall, (int(x), y), 3, 200, -1)
    square = cv2.resize(rng.integers(0, 256, (6, 6)).astype(np.uint8), (22, 22))
    frames = []
    for f in range(4):
        frame = wall[8:88, 20 - step * f : 116 - step * f].copy()
        top, left = 12 + away * f, 40 + step * f
        frame[top : top + 22, left : left + 22] = square
        frames.append(frame)
    return np.stack(frames)[..., None].repeat(3, -1)


def test_a_few_spots_on_a_plain_wall_show_the_camera(tracker: DisTracker) -> None:
    """An object that has more texture than they is not taken for it, and the wall moves with them."""
    for f, step in enumerate(tracker.track(spotted(4, step=2, away=3)).displacement_fhw2[1:], 1):
        top, left = 12 + 3 * f, 40 + 2 * f
        # To about a pixel, since the spots are few; taking them for moving things would be 2 px off.
        assert np.abs(np.median(step[:, 70:], (0, 1)) - (2, 0)).max() < 1, f
        inner = step[top + 6 : top + 16, left + 6 : left + 16]
        assert np.abs(np.median(inner, (0, 1)) - (2, 3)).max() < 0.5, f


def test_an_object_before_a_plain_wall_is_no_camera(tracker: DisTracker) -> None:
    """Neither with nothing else in sight, nor where spots say that the camera stands still."""
    for spots in (0, 6):
        field = tracker.track(spotted(spots, step=0, away=3)).displacement_fhw2
        assert not field[1:, :, 80:].any()
        assert np.abs(np.median(field[3, 27:37, 46:56], (0, 1)) - (0, 3)).max() < 0.5


def test_a_toy_at_rest_does_not_move_until_it_turns(tracker: DisTracker, shared: Path) -> None:
    """The propeller of a real clip rests for a second and a half, then turns; the rest only trembles."""
    sampler = FrameSampler(max_frames=90, height=64, width=64)
    frames = decode_clip(shared / "clips" / "io__small.mp4", sampler).frames_fhw3
    assert np.abs(frames[:33, 2:18, 22:52].astype(int) - frames[0, 2:18, 22:52]).mean() < 1
    assert not tracker.track(frames[:33]).displacement_fhw2.any()
    turning = tracker.track(frames[46:]).speed_fhw()[1:]
    assert turning[:, 2:18, 22:52].max() > 2
    turning[:, 2:18, 22:52] = 0
    assert turning.mean() < 0.02


@pytest.mark.parametrize("lens", ["pan", "zoom"])
def test_the_second_pass_is_better_under_a_moving_camera(tracker: DisTracker, lens: str) -> None:
    single, double = [], []
    scenes = [draw_scene("spin", 5, seed=6, index=i, camera=lens) for i in range(16)]
    for scene in [s for s in scenes if s.look.background in ("waves", "tiles")]:
        frames, truth = render_frames(scene), true_motion(scene).from_previous_fhw2
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
        once = [-tracker._search(grey[f], grey[f - 1])[0] for f in range(1, 5)]
        single.append(np.linalg.norm(np.stack(once) - truth[1:], axis=-1).mean())
        found = tracker.track(frames).displacement_fhw2
        double.append(np.linalg.norm(found - truth, axis=-1)[1:].mean())
    assert len(single) > 4
    assert np.mean(double) < 0.9 * np.mean(single)


def test_a_camera_is_composed_exactly(tracker: DisTracker) -> None:
    """Where nothing moves by itself, the field is the camera's map and nothing else."""
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.uniform(0, 255, (128, 128)).astype(np.float32), (0, 0), 2)
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX)
    zoom = np.float32([[1.04, 0.01, 1], [-0.01, 1.04, -2]])
    frames = [texture, cv2.warpAffine(texture, zoom, (128, 128), flags=cv2.INTER_CUBIC)]
    field = tracker.track(np.clip(frames, 0, 255).astype(np.uint8)[..., None].repeat(3, -1))
    inner = np.s_[24:-24, 24:-24]
    grid = np.stack(np.meshgrid(np.arange(128), np.arange(128)), -1)
    came_from = (grid - zoom[:, 2]) @ np.linalg.inv(zoom[:, :2]).T
    error = np.linalg.norm(field.displacement_fhw2[1] - (grid - came_from), axis=-1)
    assert np.median(error[inner]) < 0.03
    # One map: its second differences vanish, but where the residual flow is believed.
    bend = np.abs(np.diff(field.displacement_fhw2[1][inner], n=2, axis=0)).max(-1)
    assert np.median(bend) < 1e-4


def test_a_clip_does_not_depend_on_the_clip_before() -> None:
    clips = [render_frames(draw_scene(k, 5, seed=2, index=0)) for k in ("bounce", "spin")]
    big = clips[0].repeat(2, 1).repeat(2, 2)
    fresh = DisTracker().track(clips[0])
    used = DisTracker()
    for before in (clips[1], big, np.zeros_like(clips[0]), clips[0]):
        used.track(before)
        assert same(used.track(clips[0]), fresh)
    # Nor does a frame depend on the frames before the last.
    assert np.array_equal(
        used.track(clips[0][2:]).displacement_fhw2[1:], fresh.displacement_fhw2[3:]
    )


@pytest.fixture
def _restore_threads() -> Iterator[None]:
    threads = cv2.getNumThreads()
    yield
    cv2.setNumThreads(threads)


@pytest.mark.usefixtures("_restore_threads")
def test_a_clip_does_not_depend_on_the_number_of_threads() -> None:
    clip = render_frames(draw_scene("swing", 3, seed=2, index=0)).repeat(3, 1).repeat(4, 2)
    fields = []
    for threads in (1, 2, 5):
        cv2.setNumThreads(threads)
        fields.append(DisTracker().track(clip))
    assert same(fields[0], fields[1])
    assert same(fields[0], fields[2])


@pytest.mark.parametrize(
    "shape", [(3, 1, 1), (3, 8, 8), (2, 1, 50), (2, 50, 1), (2, 31, 33), (4, 32, 32), (2, 15, 129)]
)
@pytest.mark.parametrize("content", ["noise", "black", "flicker"])
def test_tiny_and_empty_frames(
    tracker: DisTracker, shape: tuple[int, int, int], content: str
) -> None:
    rng = np.random.default_rng(0)
    frames = {
        "noise": rng.integers(0, 256, (*shape, 3)),
        "black": np.zeros((*shape, 3)),
        "flicker": np.broadcast_to(
            (np.arange(shape[0]) % 2 * 255)[:, None, None, None], (*shape, 3)
        ),
    }[content].astype(np.uint8)
    field = tracker.track(frames)
    assert_sound(field, shape)
    if content == "black":
        assert not field.displacement_fhw2.any()
        assert (field.confidence_fhw == 1).all()
        assert (field.visibility_fhw == 1).all()


def test_frames_that_do_not_change_do_not_move(tracker: DisTracker) -> None:
    still = render_frames(draw_scene("static", 5, seed=1, index=0))[:1].repeat(5, 0)
    field = tracker.track(still)
    assert np.abs(field.displacement_fhw2).max() < 0.05
    assert field.confidence_fhw.min() > 0.95


def test_one_frame_has_no_motion(tracker: DisTracker) -> None:
    field = tracker.track(np.full((1, 64, 64, 3), 7, np.uint8))
    assert_sound(field, (1, 64, 64))
    assert (field.confidence_fhw == 1).all()


def test_the_fingerprint_names_the_settings(tracker: DisTracker) -> None:
    assert tracker.fingerprint() == DisTracker().fingerprint()
    assert tracker.fingerprint().startswith("dis ")
    # Flow may differ by any version of OpenCV.
    assert tracker.fingerprint().endswith(f"opencv={cv2.__version__}")
