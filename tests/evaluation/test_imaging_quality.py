"""imaging_quality against VBench's golden vectors, in each of its modes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from vbench_goldens import WeightedMean, arrays, numbers, synthetic

from motive.errors import UserError
from motive.evaluation.catalog import DIMENSIONS
from motive.evaluation.imaging_quality import ImagingQuality
from motive.evaluation.networks.choice import Networks
from motive.evaluation.preprocessing import IMAGING_MODES, ImagingMode, for_musiq, imaging_mode
from motive.evaluation.video import Video


def in_pairs(sizes: list[int]) -> list[tuple[int, int]]:
    return list(zip(sizes[::2], sizes[1::2], strict=True))


@pytest.mark.parametrize("mode", IMAGING_MODES)
def test_scores_and_frames_are_vbenchs(shared: Path, mode: ImagingMode) -> None:
    stored, expected = arrays(shared, "imaging_quality"), numbers(shared, "imaging_quality")
    (by_mode,) = (entry for entry in expected["by_mode"] if entry["mode"] == mode)
    scores = []
    for case, wanted in enumerate(by_mode["scores"]):
        network = WeightedMean()
        frames = synthetic(*(int(n) for n in stored[f"case{case}_THWseed"]))
        scores.append(ImagingQuality(network, mode).score(Video(frames, 8.0)))
        # The network sees one frame at a time.
        seen = torch.cat(network.seen)
        assert len(network.seen) == len(frames)
        assert tuple(seen.shape) == tuple(stored[f"case{case}_{mode}_shape"])
        np.testing.assert_allclose(
            seen[..., ::16, ::16].numpy(), stored[f"case{case}_{mode}_stride16"], atol=1e-5
        )
        assert scores[-1].value == pytest.approx(wanted, abs=1e-4)  # of 100
    found = DIMENSIONS["imaging_quality"].aggregate(scores)
    assert found == pytest.approx(by_mode["aggregate"], abs=1e-6)


def test_sizes_are_vbenchs(shared: Path) -> None:
    table = numbers(shared, "imaging_quality")["size_table"]
    assert len(table) == 12
    for height, width, *sizes in table:
        frame = torch.zeros(1, 3, height, width)
        for mode, wanted in zip(IMAGING_MODES, in_pairs(sizes), strict=False):
            if -1 not in wanted:
                assert tuple(for_musiq(frame, mode).shape[2:]) == wanted


def test_the_default_mode_is_vbenchs(shared: Path) -> None:
    assert numbers(shared, "imaging_quality")["default_mode_is_longer"]
    assert Networks().imaging_mode == "longer"
    with pytest.raises(UserError, match="there is no imaging mode 'wide'"):
        imaging_mode("wide")
