"""subject_consistency and background_consistency against VBench's golden vectors."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from vbench_goldens import GridMeans, StoredFeatures, arrays, blank, numbers, synthetic

from motive.errors import ClipError
from motive.evaluation.catalog import DIMENSIONS
from motive.evaluation.consistency import Consistency, frame_similarities
from motive.evaluation.preprocessing import for_clip, for_dino
from motive.evaluation.video import Video

BOTH = [("subject_consistency", for_dino), ("background_consistency", for_clip)]
Prepare = Callable[[Tensor], Tensor]


@pytest.mark.parametrize(("name", "prepare"), BOTH)
def test_formula_and_aggregates_are_vbenchs(shared: Path, name: str, prepare: Prepare) -> None:
    stored, expected = arrays(shared, name), numbers(shared, name)
    scores = []
    for case in expected["cases"]:
        network = StoredFeatures(stored[f"case{case['case']}_features"])
        scores.append(Consistency(network, prepare).score(blank(case["T"])))
        assert scores[-1].value == pytest.approx(case["score"], abs=1e-5)
    assert DIMENSIONS[name].aggregate(scores) == pytest.approx(expected["aggregate"], abs=1e-5)
    plain = np.mean([score.value for score in scores])
    assert plain == pytest.approx(expected["mean_of_videos"], abs=1e-5)


@pytest.mark.parametrize(("name", "prepare"), BOTH)
def test_frames_come_to_the_network_as_vbenchs(shared: Path, name: str, prepare: Prepare) -> None:
    stored = arrays(shared, name)
    for case in numbers(shared, name)["end_to_end"]:
        key = f"e2e{case['case']}"
        frames = synthetic(case["T"], case["H"], case["W"], int(stored[f"{key}_seed"]))
        network = GridMeans()
        score = Consistency(network, prepare).score(Video(frames, 8.0))
        seen = torch.cat(network.seen)
        assert list(seen.shape) == case["preprocessed"]
        sampled = seen[..., ::16, ::16].numpy()
        np.testing.assert_allclose(sampled, stored[f"{key}_pre_stride16"], atol=1e-5)
        np.testing.assert_allclose(
            network(seen).numpy(), stored[f"{key}_grid_features"], rtol=1e-4, atol=1e-5
        )
        assert score.value == pytest.approx(case["score"], abs=1e-5)


def test_one_frame_is_refused() -> None:
    with pytest.raises(ClipError, match="no other"):
        Consistency(GridMeans(), for_dino).score(blank(1))


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 9), st.integers(1, 6), st.integers(0, 2**31), st.floats(0.1, 100))
def test_similarities_are_in_0_to_1_and_know_no_length(
    frames: int, width: int, seed: int, scale: float
) -> None:
    features = torch.from_numpy(np.random.default_rng(seed).standard_normal((frames, width)))
    found = frame_similarities(features)
    assert found.shape == (frames - 1,)
    assert ((found >= 0) & (found <= 1 + 1e-6)).all()
    torch.testing.assert_close(frame_similarities(features * scale), found, atol=1e-5, rtol=1e-5)
    still = features[:1].expand(frames, -1)
    torch.testing.assert_close(frame_similarities(still), torch.ones_like(found), atol=1e-5, rtol=0)
