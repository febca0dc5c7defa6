"""What the motion masks are worth, where the true motion is known: numbers for docs/results/motion.

    python scripts/motion_study.py --out docs/results/motion

MotionZoo scenes are rendered, written as mp4 and decoded again, with a still camera and the very same
scenes with a pan and with a zoom. DIS flow, as the tracker gives it and as a single search, is compared
with the true displacement, and the thresholded mask of the recipes `paper` and `object` with the pixels
that truly move by themselves. Everything follows from the seed; the run is single-threaded but for
OpenCV.

With a folder of labelled real clips (`--real`) it also asks whether clips that a person called static
move least, and clips that a person called camera motion have the highest camera share.
"""

import argparse
import json
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from motion_study_page import draw_conventions, write_markdown
from motion_study_real import study_real

from motive.clips.decoding import decode_clip
from motive.clips.sampling import FrameSampler
from motive.motion.camera import CameraModel, CameraMotion, estimate_camera
from motive.motion.dis import DisTracker
from motive.motion.field import MotionField
from motive.motion.masks import motion_mask, reduce_field
from motive.motion.statistics import describe_field
from motive.zoo.check import mean_interval
from motive.zoo.motions import OTHER_KINDS, PAPER_MOTIONS, SIZE
from motive.zoo.render import FPS, write_mp4
from motive.zoo.scene import Scene, Truth, draw_scene, render_frames, true_motion

MOVING = 0.5  # pixels per frame from which a pixel truly moves
THRESHOLDS = (0.1, 0.25, 0.5)
THRESHOLD = 0.25  # of the tables; the others are in the JSON
CAMERAS = ("none", "pan", "zoom")
RECIPES = ("paper", "object")
MODELS: tuple[CameraModel, ...] = ("translation", "similarity", "homography")
TEXTURED = ("waves", "tiles")  # backgrounds on which flow has something to hold on to
SHOWN = (
    "single search object",
    "single search object trusted",
    "dis paper",
    "dis object",
    "dis object trusted",
    "truth paper",
    "truth object",
)


class SingleSearch(DisTracker):
    """DIS as it is: one search for each pair of frames, believed everywhere."""

    def _flow_back(
        self, now_hw: np.ndarray, before_hw: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        return self._search(now_hw, before_hw)


def decoded(scene: Scene, folder: Path) -> np.ndarray:
    """The scene's frames after H.264."""
    path = folder / "clip.mp4"
    write_mp4(path, render_frames(scene), FPS)
    sampler = FrameSampler(max_frames=scene.frames, height=SIZE, width=SIZE)
    return decode_clip(path, sampler).frames_fhw3


def true_field(truth: Truth) -> MotionField:
    ones = np.ones(truth.object_mask_fhw.shape, np.float32)
    moves = truth.from_previous_fhw2.astype(np.float32)
    return MotionField(moves, ones, ones, "from_previous")


def true_camera(truth: Truth) -> CameraMotion:
    """The true maps of the still world from each frame to the one before."""
    bottom = np.tile([[[0.0, 0.0, 1.0]]], (len(truth.camera_f23), 1, 1))
    from_first = np.concatenate([truth.camera_f23, bottom], 1)
    back = from_first[:-1] @ np.linalg.inv(from_first[1:])
    return CameraMotion(np.concatenate([np.eye(3)[None], back]), np.ones(len(bottom)))


def overlap(mask_fhw: np.ndarray, moving_fhw: np.ndarray) -> float:
    """Intersection over union; frame 0 has no motion and does not count."""
    mask, moving = mask_fhw[1:], moving_fhw[1:]
    union = (mask | moving).sum()
    return float((mask & moving).sum() / union) if union else 1.0


def study_clip(
    kind: str, lens: str | None, index: int, frames: int, seed: int, folder: Path
) -> Any:
    """Errors and overlaps of one clip."""
    scene = draw_scene(kind, frames, seed=seed, index=index, camera=lens)
    truth, pictures = true_motion(scene), decoded(scene, folder)
    exact = true_field(truth)
    moving = true_camera(truth).residual(exact).magnitude_fhw() > MOVING
    row: dict[str, Any] = {
        "kind": kind,
        "camera": scene.camera,
        "index": index,
        "background": scene.look.background,
        "moving_share": float(moving[1:].mean()),
        "errors": {},
        "mean_error": {},
        "iou": {},
        "camera_error": {},
        "camera_share": {},
    }
    fields = {
        "single search": SingleSearch().track(pictures),
        "dis": DisTracker().track(pictures),
        "truth": exact,
    }
    for of, field in fields.items():
        error = np.linalg.norm(field.displacement_fhw2 - exact.displacement_fhw2, axis=-1)
        if of != "truth":
            row["errors"][of] = error[exact.magnitude_fhw() > MOVING]
            row["mean_error"][of] = float(error[1:].mean())
        for model in MODELS if of != "single search" else ("similarity",):
            camera = estimate_camera(field, model)
            maps = reduce_field(field, 1, camera)
            off = (
                camera.part(exact).displacement_fhw2
                - true_camera(truth).part(exact).displacement_fhw2
            )
            row["camera_error"][f"{of} {model}"] = float(np.linalg.norm(off[1:], axis=-1).mean())
            row["camera_share"][f"{of} {model}"] = describe_field(field, camera).camera_share
            for recipe in RECIPES if model == "similarity" else ("object",):
                name = recipe if model == "similarity" else f"{recipe} {model}"
                for trusted in (False, True):
                    mask = motion_mask(maps, recipe, trusted=trusted)
                    full = f"{of} {name}{' trusted' if trusted else ''}"
                    row["iou"][full] = {str(t): overlap(mask > t, moving) for t in THRESHOLDS}
    return row


def interval(values: list[float]) -> dict[str, float]:
    mean, low, high = mean_interval(values)
    return {"mean": mean, "low": low, "high": high, "clips": len(values)}


def by_camera(rows: list[Any], value: Callable[[Any], float]) -> dict[str, dict[str, float]]:
    return {
        lens: interval([value(row) for row in rows if row["camera"] == lens]) for lens in CAMERAS
    }


def by_background(rows: list[Any]) -> dict[str, list[Any]]:
    return {
        "all": rows,
        "textured": [row for row in rows if row["background"] in TEXTURED],
        "gradient": [row for row in rows if row["background"] == "gradient"],
        "plain": [row for row in rows if row["background"] == "plain"],
    }


def errors_of_what_moves(rows: list[Any]) -> dict[str, Any]:
    """By motion category, over the moving pixels of all its clips with the category's own camera."""
    by_kind: dict[str, list[dict[str, np.ndarray]]] = defaultdict(list)
    for row in rows:
        by_kind[row["kind"]].append(row["errors"])
    found: dict[str, Any] = {}
    for kind, clips in by_kind.items():
        for of in clips[0]:
            pixels = np.concatenate([errors[of] for errors in clips])
            if len(pixels):
                found.setdefault(kind, {"pixels": len(pixels)})[of] = {
                    "mean": float(pixels.mean()),
                    "median": float(np.median(pixels)),
                }
    return found


def overlaps(rows: list[Any]) -> dict[str, Any]:
    """Mean IoU by background, field with recipe, camera and threshold, and what is kept of it."""
    result: dict[str, Any] = {}
    for group, members in by_background(rows).items():
        for name in rows[0]["iou"]:
            for threshold in map(str, THRESHOLDS):

                def value(row: Any, name: str = name, threshold: str = threshold) -> float:
                    return row["iou"][name][threshold]

                table: dict[str, Any] = by_camera(members, value)
                still = table["none"]["mean"]
                table["kept"] = {
                    lens: table[lens]["mean"] / still for lens in CAMERAS[1:] if still > 0
                }
                result.setdefault(group, {}).setdefault(name, {})[threshold] = table
    return result


def study_zoo(per_kind: int, frames: int, seed: int) -> dict[str, Any]:
    rows, others = [], []
    with tempfile.TemporaryDirectory() as folder:
        for i in range(per_kind * len(PAPER_MOTIONS)):
            kind = PAPER_MOTIONS[i % len(PAPER_MOTIONS)]
            rows += [study_clip(kind, lens, i, frames, seed, Path(folder)) for lens in CAMERAS]
        for i in range(per_kind * len(OTHER_KINDS)):
            kind = OTHER_KINDS[i % len(OTHER_KINDS)]
            others.append(study_clip(kind, None, i, frames, seed, Path(folder)))
    still = [r for r in rows if r["camera"] == "none"]
    groups = by_background(rows)
    return {
        "end_point_error": errors_of_what_moves(still + others),
        "mean_error": {
            group: {
                of: by_camera(members, lambda row, of=of: row["mean_error"][of])  # type: ignore[misc]
                for of in rows[0]["mean_error"]
            }
            for group, members in groups.items()
        },
        "iou": overlaps(rows),
        "moving_share": interval([r["moving_share"] for r in still]),
        "camera_error": {
            group: {
                of: by_camera(members, lambda row, of=of: row["camera_error"][of])  # type: ignore[misc]
                for of in rows[0]["camera_error"]
            }
            for group, members in groups.items()
        },
        "camera_share": {
            kind: interval(
                [r["camera_share"]["dis similarity"] for r in others if r["kind"] == kind]
            )
            for kind in OTHER_KINDS
        }
        | {
            f"object and {lens}": interval(
                [r["camera_share"]["dis similarity"] for r in rows if r["camera"] == lens]
            )
            for lens in CAMERAS
        },
        "clips": [in_short(row) for row in rows + others],
    }


def in_short(row: Any) -> dict[str, Any]:
    """A clip's line of the JSON."""
    facts = ("kind", "camera", "index", "background", "moving_share", "mean_error")
    iou = {name: row["iou"][name][str(THRESHOLD)] for name in SHOWN}
    return {name: row[name] for name in facts} | {"iou": iou}


def main() -> None:
    root = Path(__file__).parents[1]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--per-kind", type=int, default=4, help="clips of each kind")
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path, default=root / "docs" / "conventions.png")
    parser.add_argument(
        "--real",
        type=Path,
        default=root.parent / "shared" / "clips",
        help="folder of real clips with metadata.csv (file_name, motion_label); left out if not there",
    )
    options = parser.parse_args()
    candidates = (draw_scene("slide", 17, seed=options.seed, index=i) for i in range(100))
    scene = next(s for s in candidates if s.look.background == "waves")
    truth = true_motion(scene)
    draw_conventions(
        options.picture,
        render_frames(scene),
        true_field(truth),
        truth.from_first_fhw2.astype(np.float32),
    )
    results: dict[str, Any] = {
        "settings": {
            "per_kind": options.per_kind,
            "frames": options.frames,
            "seed": options.seed,
            "tracker": DisTracker().fingerprint(),
            "moving": MOVING,
            "threshold": THRESHOLD,
            "shown": SHOWN,
        },
        "zoo": study_zoo(options.per_kind, options.frames, options.seed),
    }
    if (options.real / "metadata.csv").is_file():
        results["real"] = study_real(options.real)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "motion.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    write_markdown(options.out / "motion.md", results)


if __name__ == "__main__":
    main()
