"""Labelled real clips: do those that a person called static move least, and cameras' explain most?"""

import csv
from pathlib import Path
from typing import Any

import numpy as np

from motive.clips.decoding import decode_clip
from motive.clips.sampling import FrameSampler
from motive.errors import ClipError
from motive.motion.camera import estimate_camera
from motive.motion.dis import DisTracker
from motive.motion.masks import MOTIONS, motion_mask, reduce_field
from motive.motion.statistics import MotionStatistics, describe_field

SAMPLER = FrameSampler(max_frames=17, height=144, width=256)


def better(values: list[float], others: list[float]) -> float:
    """The probability that one of `values` is above one of `others`, ties counting half."""
    a, b = np.array(values)[:, None], np.array(others)[None]
    return float(((a > b) + 0.5 * (a == b)).mean())


def study_real(folder: Path) -> dict[str, Any]:
    """Motion statistics of labelled real clips, and the labels that they contradict."""
    found, refused = measure(folder)
    return {
        "sampler": vars(SAMPLER),
        "decodable": len(found),
        "refused": refused,
        "finite_masks": sum(r["finite_masks"] for r in found),
        **disagreements(found),
        "clips": found,
    }


def measure(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """The statistics of the clips that decode, and why the others do not."""
    found: list[dict[str, Any]] = []
    refused = []
    with (folder / "metadata.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        try:
            clip = decode_clip(folder / row["file_name"], SAMPLER)
        except ClipError as error:
            refused.append({"file_name": row["file_name"], "reason": str(error)})
            continue
        field = DisTracker().track(clip.frames_fhw3)
        camera = estimate_camera(field)
        maps = reduce_field(field, 8, camera)
        finite = all(
            bool(np.isfinite(motion_mask(maps, recipe, trusted=trusted)).all())
            for recipe in MOTIONS
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
    return found, refused


def disagreements(found: list[dict[str, Any]]) -> dict[str, Any]:
    """How well the statistics tell the labels apart, and the clips where they do not."""
    labelled = [r for r in found if r["label"] and r["frames"] > 1]
    static = [r for r in labelled if r["label"] == "static"]
    camera_clips = [r for r in labelled if r["label"] == "camera"]
    moving = [r for r in labelled if r["label"] != "static"]
    objects = [r for r in moving if r["label"] != "camera"]
    speed_bound = float(np.percentile([r["mean_speed"] for r in moving], 25))
    share_bound = float(np.median([r["camera_share"] for r in objects]))
    high_share = float(np.median([r["camera_share"] for r in camera_clips]))
    return {
        "static_moves_less": better(
            [-r["mean_speed"] for r in static], [-r["mean_speed"] for r in moving]
        ),
        "camera_has_more_share": better(
            [r["camera_share"] for r in camera_clips], [r["camera_share"] for r in objects]
        ),
        "speed_bound": speed_bound,
        "share_bound": share_bound,
        "static_exceptions": [r for r in static if r["mean_speed"] > speed_bound],
        "camera_exceptions": [r for r in camera_clips if r["camera_share"] <= share_bound],
        "other_with_camera_share": sorted(
            (r for r in objects if r["camera_share"] > high_share),
            key=lambda r: -r["camera_share"],
        ),
        "camera_median_share": high_share,
    }
