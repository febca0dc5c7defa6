"""What the motion masks are worth, where the true motion is known: numbers for docs/results/motion.

    python scripts/motion_study.py --out docs/results/motion

MotionZoo scenes are rendered, written as mp4 and decoded again, with a still camera and the very same
scenes with a pan and with a zoom. DIS flow is compared with the true displacement, and the thresholded
mask of the recipes `paper` and `object` with the pixels that truly move by themselves. Everything
follows from the seed; the run is single-threaded but for OpenCV.

With a folder of labelled real clips (`--real`) it also asks whether clips that a person called static
move least, and clips that a person called camera motion have the highest camera share.
"""

import argparse
import csv
import json
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np

from motive.clips.decoding import decode_clip
from motive.clips.sampling import FrameSampler
from motive.errors import ClipError
from motive.motion.camera import CameraModel, CameraMotion, estimate_camera
from motive.motion.dis import DisTracker
from motive.motion.field import MotionField
from motive.motion.masks import motion_mask, reduce_field
from motive.motion.statistics import MotionStatistics, describe_field
from motive.zoo.check import mean_interval
from motive.zoo.motions import OTHER_KINDS, PAPER_MOTIONS, SIZE
from motive.zoo.render import FPS
from motive.zoo.scene import Scene, Truth, draw_scene, render_frames, true_motion

MOVING = 0.5  # pixels per frame from which a pixel truly moves
THRESHOLDS = (0.1, 0.25, 0.5)
THRESHOLD = 0.25  # of the tables; the others are in the JSON
CAMERAS = ("none", "pan", "zoom")
RECIPES = ("paper", "object")
MODELS: tuple[CameraModel, ...] = ("translation", "similarity", "homography")
TEXTURED = ("waves", "tiles")  # backgrounds on which flow has something to hold on to
SHOWN = ("dis paper", "dis object", "dis object trusted", "truth paper", "truth object")
REAL_SAMPLER = FrameSampler(max_frames=17, height=144, width=256)


def decoded(scene: Scene, folder: Path) -> np.ndarray:
    """The scene's frames after H.264."""
    path = folder / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.height = stream.width = SIZE
        stream.pix_fmt = "yuv420p"
        # On frames this small x264's macroblock tree reads memory that was never written, and the file
        # would depend on what the process did before.
        stream.options = {"crf": "12", "threads": "1", "x264-params": "mbtree=0"}
        for image in render_frames(scene):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
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
    truth = true_motion(scene)
    exact, found = true_field(truth), DisTracker().track(decoded(scene, folder))
    own = true_camera(truth).residual(exact).magnitude_fhw()
    moving = own > MOVING
    error = np.linalg.norm(found.displacement_fhw2 - exact.displacement_fhw2, axis=-1)
    row: dict[str, Any] = {
        "kind": kind,
        "camera": scene.camera,
        "index": index,
        "background": scene.look.background,
        "errors": error[exact.magnitude_fhw() > MOVING],
        "moving_share": float(moving[1:].mean()),
        "iou": {},
        "camera_error": {},
        "camera_share": {},
    }
    for field, of in ((found, "dis"), (exact, "truth")):
        for model in MODELS:
            camera = estimate_camera(field, model)
            maps = reduce_field(field, 1, camera)
            off = (
                camera.part(exact).displacement_fhw2
                - true_camera(truth).part(exact).displacement_fhw2
            )
            row["camera_error"][f"{of} {model}"] = float(np.linalg.norm(off[1:], axis=-1).mean())
            row["camera_share"][f"{of} {model}"] = describe_field(field, camera).camera_share
            for recipe in RECIPES:
                if recipe == "paper" and model != "similarity":
                    continue
                name = recipe if model == "similarity" else f"{recipe} {model}"
                for trusted in (False, True):
                    mask = motion_mask(maps, recipe, trusted=trusted)
                    full = f"{of} {name}{' trusted' if trusted else ''}"
                    row["iou"][full] = {str(t): overlap(mask > t, moving) for t in THRESHOLDS}
    return row


def interval(values: list[float]) -> dict[str, float]:
    mean, low, high = mean_interval(values)
    return {"mean": mean, "low": low, "high": high, "clips": len(values)}


def end_point_errors(rows: list[Any]) -> dict[str, Any]:
    """By motion category, over the moving pixels of all its clips with the category's own camera."""
    by_kind: dict[str, list[np.ndarray]] = defaultdict(list)
    for row in rows:
        by_kind[row["kind"]].append(row["errors"])
    found = {}
    for kind, errors in by_kind.items():
        pixels = np.concatenate(errors)
        if len(pixels):
            found[kind] = {
                "mean": float(pixels.mean()),
                "median": float(np.median(pixels)),
                "pixels": len(pixels),
            }
    return found


def overlaps(rows: list[Any]) -> dict[str, Any]:
    """Mean IoU by background, field with recipe, camera and threshold, and what is kept of it."""
    groups = {
        "all": rows,
        "textured": [r for r in rows if r["background"] in TEXTURED],
        "untextured": [r for r in rows if r["background"] not in TEXTURED],
    }
    result: dict[str, Any] = {}
    for group, members in groups.items():
        for name in rows[0]["iou"]:
            for threshold in map(str, THRESHOLDS):
                table = {
                    lens: interval(
                        [r["iou"][name][threshold] for r in members if r["camera"] == lens]
                    )
                    for lens in CAMERAS
                }
                kept = {
                    lens: table[lens]["mean"] / table["none"]["mean"]
                    for lens in CAMERAS[1:]
                    if table["none"]["mean"] > 0
                }
                result.setdefault(group, {}).setdefault(name, {})[threshold] = {
                    **table,
                    "kept": kept,
                }
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
    return {
        "end_point_error": end_point_errors(still + others),
        "iou": overlaps(rows),
        "moving_share": interval([r["moving_share"] for r in still]),
        "camera_error": {
            name: {
                lens: interval([r["camera_error"][name] for r in rows if r["camera"] == lens])
                for lens in CAMERAS
            }
            for name in rows[0]["camera_error"]
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
    facts = ("kind", "camera", "index", "background", "moving_share")
    iou = {name: row["iou"][name][str(THRESHOLD)] for name in SHOWN}
    return {name: row[name] for name in facts} | {"iou": iou}


def better(values: list[float], others: list[float]) -> float:
    """The probability that one of `values` is above one of `others`, ties counting half."""
    a, b = np.array(values)[:, None], np.array(others)[None]
    return float(((a > b) + 0.5 * (a == b)).mean())


def study_real(folder: Path) -> dict[str, Any]:
    """Motion statistics of labelled real clips, and the labels that they contradict."""
    found: list[dict[str, Any]] = []
    refused = []
    with (folder / "metadata.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        try:
            clip = decode_clip(folder / row["file_name"], REAL_SAMPLER)
        except ClipError as error:
            refused.append({"file_name": row["file_name"], "reason": str(error)})
            continue
        field = DisTracker().track(clip.frames_fhw3)
        camera = estimate_camera(field)
        maps = reduce_field(field, 8, camera)
        finite = all(
            bool(np.isfinite(motion_mask(maps, recipe, trusted=trusted)).all())
            for recipe in (*RECIPES, "camera")
            for trusted in (False, True)
        )
        statistics: MotionStatistics = describe_field(field, camera)
        found.append(
            {
                "file_name": row["file_name"],
                "label": row["motion_label"],
                "frames": len(clip.frames_fhw3),
                "finite_masks": finite,
                **vars(statistics),
            }
        )
    labelled = [r for r in found if r["label"] and r["frames"] > 1]
    static = [r for r in labelled if r["label"] == "static"]
    camera_clips = [r for r in labelled if r["label"] == "camera"]
    moving = [r for r in labelled if r["label"] != "static"]
    objects = [r for r in moving if r["label"] != "camera"]
    speed_bound = float(np.percentile([r["mean_speed"] for r in moving], 25))
    share_bound = float(np.median([r["camera_share"] for r in objects]))
    high_share = float(np.median([r["camera_share"] for r in camera_clips]))
    return {
        "sampler": vars(REAL_SAMPLER),
        "decodable": len(found),
        "refused": refused,
        "finite_masks": sum(r["finite_masks"] for r in found),
        "static_moves_less": better(
            [-r["mean_speed"] for r in static], [-r["mean_speed"] for r in moving]
        ),
        "camera_has_more_share": better(
            [r["camera_share"] for r in camera_clips], [r["camera_share"] for r in objects]
        ),
        "speed_bound": speed_bound,
        "share_bound": share_bound,
        "static_exceptions": [r for r in static if r["mean_speed"] > speed_bound],
        "camera_exceptions": [r for r in camera_clips if r["camera_share"] < share_bound],
        "other_with_camera_share": sorted(
            (r for r in objects if r["camera_share"] > high_share),
            key=lambda r: -r["camera_share"],
        ),
        "camera_median_share": high_share,
        "clips": found,
    }


def draw_conventions(path: Path, seed: int) -> None:
    """The same clip under both conventions, with the paper's mask over its frames."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    candidates = (draw_scene("slide", 17, seed=seed, index=i) for i in range(100))
    scene = next(s for s in candidates if s.look.background == "waves")
    frames, truth = render_frames(scene), true_motion(scene)
    previous = true_field(truth)
    first = replace(
        previous,
        displacement_fhw2=truth.from_first_fhw2.astype(np.float32),
        convention="from_first",
    )
    shown = (1, 6, 11, 16)
    figure, axes = plt.subplots(3, len(shown), figsize=(8, 6.4), layout="constrained")
    rows = (
        ("the clip", None),
        ("from_previous\n(flow: DIS)", motion_mask(reduce_field(previous, 1), "paper")),
        ("from_first\n(tracks: AllTracker)", motion_mask(reduce_field(first, 1), "paper")),
    )
    for line, (name, mask) in zip(axes, rows, strict=True):
        for axis, f in zip(line, shown, strict=True):
            axis.imshow(frames[f], alpha=1.0 if mask is None else 0.35)
            if mask is not None:
                axis.imshow(mask[f], alpha=0.75, cmap="magma", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
            if mask is None:
                axis.set_title(f"frame {f}", fontsize=10)
        line[0].set_ylabel(name, fontsize=10)
    figure.suptitle(
        "The paper's mask W of a sliding object, by convention (bright: 1)", fontsize=11
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def as_text(cell: dict[str, float]) -> str:
    return f"{cell['mean']:.3f} ({cell['low']:.3f} … {cell['high']:.3f})"


def write_markdown(path: Path, results: dict[str, Any]) -> None:
    zoo, settings = results["zoo"], results["settings"]
    lines = [
        "# Motion masks against known motion",
        "",
        "Made by `python scripts/motion_study.py --out docs/results/motion`; every number is in",
        f"`motion.json`. {settings['per_kind']} clips of each kind, {settings['frames']} frames of "
        f"64 × 64, seed {settings['seed']}, decoded from mp4; DIS flow, similarity camera.",
        "",
        "## End-point error of DIS, pixels",
        "",
        f"Over the pixels that truly move by more than {MOVING} px per frame, camera included.",
        "",
        "| kind | mean | median | pixels |",
        "|---|---|---|---|",
    ]
    for kind, cell in zoo["end_point_error"].items():
        lines.append(f"| {kind} | {cell['mean']:.2f} | {cell['median']:.2f} | {cell['pixels']} |")
    lines += [
        "",
        "## Does the mask find what moves by itself?",
        "",
        f"IoU of W > {THRESHOLD} with the pixels whose own motion exceeds {MOVING} px per frame "
        f"({zoo['moving_share']['mean']:.1%} of all), mean over clips with its 95% interval. The same",
        "scenes with three cameras. *kept* is the mean under that camera over the one under the still",
        "camera. `truth` is the true displacement in place of the flow: what is lost there is the",
        "camera model's fault, the rest the flow's. Textured backgrounds are waves and tiles, the",
        "others are plain or a gradient, on which a camera's motion can hardly be seen.",
        "",
        "| background | field, recipe | still | pan | kept | zoom | kept |",
        "|---|---|---|---|---|---|---|",
    ]
    for group in ("all", "textured", "untextured"):
        for name in SHOWN:
            cell = zoo["iou"][group][name][str(THRESHOLD)]
            lines.append(
                f"| {group} | {name} | {as_text(cell['none'])} | {as_text(cell['pan'])} | "
                f"{cell['kept']['pan']:.0%} | {as_text(cell['zoom'])} | {cell['kept']['zoom']:.0%} |"
            )
    lines += [
        "",
        "## The camera's displacement: error by model, pixels",
        "",
        "| field, model | still | pan | zoom |",
        "|---|---|---|---|",
    ]
    for name, cell in zoo["camera_error"].items():
        cells = " | ".join(as_text(cell[lens]) for lens in CAMERAS)
        lines.append(f"| {name} | {cells} |")
    lines += ["", "## Camera share of DIS flow by kind", "", "| clips | share |", "|---|---|"]
    lines += [f"| {kind} | {as_text(cell)} |" for kind, cell in zoo["camera_share"].items()]
    if real := results.get("real"):
        lines += [
            "",
            "## Labelled real clips",
            "",
            f"{real['decodable']} of {real['decodable'] + len(real['refused'])} files decode; "
            f"{real['finite_masks']} of them have finite masks by every recipe. First 17 frames, "
            "144 × 256; labels are one person's judgement of the whole file.",
            "",
            f"- A clip labelled static moves less than another one with probability "
            f"{real['static_moves_less']:.2f}.",
            f"- A clip labelled camera has a higher camera share than one with a moving object with "
            f"probability {real['camera_has_more_share']:.2f}.",
        ]
        for key, said in (
            (
                "static_exceptions",
                f"Labelled static, but faster than the slowest quarter of the others "
                f"({real['speed_bound']:.2f} px per frame)",
            ),
            (
                "camera_exceptions",
                f"Labelled camera, but with less camera share than the median of clips with a moving "
                f"object ({real['share_bound']:.2f})",
            ),
            (
                "other_with_camera_share",
                f"Labelled with an object's motion, but with more camera share than the median of "
                f"camera clips ({real['camera_median_share']:.2f})",
            ),
        ):
            lines += [
                "",
                f"{said}:",
                "",
                "| file | label | mean speed | camera share |",
                "|---|---|---|---|",
            ]
            lines += [
                f"| {r['file_name']} | {r['label']} | {r['mean_speed']:.2f} | {r['camera_share']:.2f} |"
                for r in real[key]
            ] or ["| none | | | |"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


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
    draw_conventions(options.picture, options.seed)
    results: dict[str, Any] = {
        "settings": {
            "per_kind": options.per_kind,
            "frames": options.frames,
            "seed": options.seed,
            "tracker": DisTracker().fingerprint(),
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
