"""Does the influence heat map lie on the object that moves? Measured against MotionZoo's true masks.

    python scripts/heat_map_study.py --out docs/results/heat --work runs/heat

Every query of the ten motions is explained by clips of the same motion. Of the heat that adds to the
influence, the share on the true object is compared with the object's share of the clip's area, and with the
share of the mask's own weight, once under the paper's mask and once without a mask, where nothing but the
gradient says where the object is. Resumable: explanations are kept in the run.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from motive.explanation import explain
from motive.motion.masks import pool_frames
from motive.pipeline import Run
from motive.runs.progress import Progress
from motive.zoo.check import mean_interval
from motive.zoo.motions import PAPER_MOTIONS
from motive.zoo.render import read_truth, render_corpus


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=5, help="of each motion")
    parser.add_argument("--quick", action="store_true", help="one clip of two motions")
    wanted = parser.parse_args()
    motions = PAPER_MOTIONS[:2] if wanted.quick else PAPER_MOTIONS
    found = []
    for mask in ("paper", "none"):
        run = _run(wanted.work, mask, motions, 1 if wanted.quick else wanted.clips)
        found += _explained(run, mask)
    wanted.out.mkdir(parents=True, exist_ok=True)
    (wanted.out / "heat.json").write_text(json.dumps(found, indent=1) + "\n")
    text = _page(found, motions)
    (wanted.out / "heat.md").write_text(text)
    print(text)


def _run(work: Path, mask: str, motions: tuple[str, ...], clips: int) -> Run:
    for name, count, seed in (
        ("clips", clips * len(motions), 11),
        ("queries", len(motions), 10_011),
    ):
        if not (work / name / "metadata.csv").is_file():
            render_corpus(
                work / name, count, seed=seed, kinds=motions, same_caption=True, lengths=(33,)
            )
    run = Run.create(
        work / f"run-{mask}",
        clips=str(work / "clips" / "metadata.csv"),
        queries=str(work / "queries" / "metadata.csv"),
        model="tiny-wan",
        motion__mask=mask,
        compute__threads=1,
        progress=Progress(),
    )
    for stage in ("ingest", "track", "encode"):
        getattr(run, stage)()
    return run


def _explained(run: Run, mask: str) -> list[dict[str, Any]]:
    queries = {_label(m): m for m in run.usable("query").values()}
    found = []
    for clip in run.usable("clip").values():
        motion = _label(clip)
        made = explain(run, clip.clip_id, queries[motion].clip_id)
        true_fhw = _true_mask(Path(clip.path), [range(*pair) for pair in made.frame_map])
        heat_fhw = np.maximum(made.heat_fhw, 0)
        found.append(
            {
                "mask": mask,
                "motion": motion,
                "clip": clip.file_name,
                "influence": made.influence,
                "heat_on_object": float((heat_fhw * true_fhw).sum() / heat_fhw.sum()),
                "object_area": float(true_fhw.mean()),
            }
        )
    return found


def _label(member: Any) -> str:
    return str(json.loads(member.extra)["motion"])


def _true_mask(video: Path, frame_map: list[range]) -> np.ndarray:
    """Cells of 8 × 8 pixels that the object touches at some time they cover, `(F, H, W)` of 0 and 1."""
    truth = read_truth(video.parent.parent / "truth" / f"{video.stem}.npz").object_mask_fhw
    cells = [
        cv2.resize(frame.astype(np.float32), (8, 8), interpolation=cv2.INTER_AREA)
        for frame in truth
    ]
    return (pool_frames(np.stack(cells), frame_map) > 0).astype(np.float32)


def _page(found: list[dict[str, Any]], motions: tuple[str, ...]) -> str:
    lines = [
        "# Where the heat is",
        "",
        "Share of the positive heat on cells that the true object touches, the cells' share of the clip, and "
        "their ratio: over clips of the query's own motion, mean with a 95% interval (Student's t).",
        "",
        "| mask | motion | clips | heat on the object | its area | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for mask in ("paper", "none"):
        for motion in (*motions, "all"):
            rows = [r for r in found if r["mask"] == mask and motion in (r["motion"], "all")]
            share = _interval([r["heat_on_object"] for r in rows])
            area = float(np.mean([r["object_area"] for r in rows]))
            ratio = _interval([r["heat_on_object"] / r["object_area"] for r in rows])
            lines.append(f"| {mask} | {motion} | {len(rows)} | {share} | {area:.2f} | {ratio} |")
    return "\n".join(lines) + "\n"


def _interval(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.2f}"
    mean, low, high = mean_interval(values)
    return f"{mean:.2f} ({low:.2f} … {high:.2f})"


if __name__ == "__main__":
    main()
