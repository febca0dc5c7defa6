"""What a call of the network promises, whatever its weights are."""

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor

from motive.errors import ClipError, UserError
from motive.motion.alltracker import AllTracker


@pytest.fixture(scope="module")
def tiny() -> AllTracker:
    """Random weights of such a size that activations keep their variance: flows of some pixels."""
    random = torch.Generator().manual_seed(0)
    model = AllTracker("tiny").eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        if name.endswith("layer_scale"):
            weight.fill_(0.25)
        elif weight.ndim == 1:
            weight.normal_(float(name.endswith("norm.weight")), 0.05, generator=random)
        else:
            weight.normal_(0, weight[0].numel() ** -0.5, generator=random)
    model.flow_head[2].weight *= 0.25
    model.visconf_head[2].weight *= 0.125
    model.update_block.final_conv.weight *= 0.5
    return model


@pytest.fixture(scope="module")
def clip() -> Tensor:
    """`(1, 20, 3, 70, 80)`: whole numbers, a texture that moves by two pixels per frame."""
    random = torch.Generator().manual_seed(1)
    coarse = torch.randint(0, 256, (1, 3, 14, 30), generator=random).float()
    texture = torch.nn.functional.interpolate(coarse, size=(70, 150), mode="bilinear")[0].round()
    return torch.stack([texture[:, :, 2 * t : 2 * t + 80] for t in range(20)])[None]


def test_one_frame_is_the_identity(tiny: AllTracker, clip: Tensor) -> None:
    flow, visconf = tiny(clip[:, :1])
    assert flow.shape == visconf.shape == (1, 1, 2, 70, 80)
    assert (flow == 0).all()
    assert (visconf == 1).all()


def test_two_frames_start_with_the_identity(tiny: AllTracker, clip: Tensor) -> None:
    flow, visconf = tiny(clip[:, :2])
    assert flow.shape == visconf.shape == (1, 2, 2, 70, 80)
    assert (flow[:, 0] == 0).all()
    assert (visconf[:, 0] == 1).all()
    assert flow[:, 1].abs().max() > 0.1
    assert (visconf[:, 1] < 1).all()


@pytest.mark.parametrize("query", [1, 2, 3, 4])
def test_query_frame_joins_both_directions(tiny: AllTracker, clip: Tensor, query: int) -> None:
    clip = clip[:, :5]
    both = tiny(clip, query_frame=query, iters=1)
    back = [maps.flip(1) for maps in tiny(clip[:, : query + 1].flip(1), iters=1)]
    ahead = tiny(clip[:, query:], iters=1)
    for joined, before, after in zip(both, back, ahead, strict=True):
        assert joined.shape[1] == 5
        assert torch.equal(joined[:, :query], before[:, :-1])
        assert torch.equal(joined[:, query + 1 :], after[:, 1:])
        assert torch.equal(joined[:, query], before[:, -1] if query >= 3 else after[:, 0])


def test_query_frame_of_a_pair(tiny: AllTracker, clip: Tensor) -> None:
    flow, _ = tiny(clip[:, :2], query_frame=1)
    assert torch.equal(flow, tiny(clip[:, :2].flip(1)).flow.flip(1))
    assert (flow[:, 1] == 0).all()


def test_drivers_differ_where_windows_overlap(tiny: AllTracker, clip: Tensor) -> None:
    first, last = (tiny(clip, driver=driver, iters=1).flow for driver in ("sliding", "overwrite"))
    differs = (first != last).flatten(3).any(-1).any(-1)[0]
    assert differs.tolist() == [8 <= t < 16 for t in range(20)]


def test_batch_is_clip_by_clip(tiny: AllTracker, clip: Tensor) -> None:
    clips = torch.cat((clip[:, :3], clip[:, 3:6]))
    for together, one, two in zip(
        tiny(clips, iters=1), tiny(clips[:1], iters=1), tiny(clips[1:], iters=1), strict=True
    ):
        assert torch.equal(together, torch.cat((one, two)))


def test_bytes_are_as_good_as_floats(tiny: AllTracker, clip: Tensor) -> None:
    clip = clip[:, :2]
    assert torch.equal(tiny(clip.byte()).flow, tiny(clip).flow)


def test_chunks_do_not_show(
    tiny: AllTracker, clip: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = clip[:, :4]
    whole = tiny(clip, iters=2)
    monkeypatch.setattr(tiny, "chunk_cells", 1)
    parts = tiny(clip, iters=2)
    torch.testing.assert_close(parts.flow, whole.flow, atol=1e-4, rtol=0)
    torch.testing.assert_close(parts.visconf, whole.visconf, atol=1e-5, rtol=0)


def test_a_long_clip_is_held_by_the_window(
    tiny: AllTracker, clip: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each frame is encoded once, and its features are gone when its windows are."""
    monkeypatch.setattr(tiny, "chunk_cells", 1)
    encoded: list[int] = []
    alive: dict[int, weakref.ref[Tensor]] = {}
    most = 0
    encode, refine = tiny._encode, tiny._refine

    def watch_encode(video: Tensor, frames: list[int], padding: Any) -> dict[int, list[Tensor]]:
        pyramids = encode(video, frames, padding)
        encoded.extend(frames)
        alive.update({frame: weakref.ref(pyramids[frame][0]) for frame in pyramids})
        return pyramids

    def watch_refine(*args: Any) -> Tensor:
        nonlocal most
        most = max(most, sum(ref() is not None for ref in alive.values()))
        return refine(*args)

    monkeypatch.setattr(tiny, "_encode", watch_encode)
    monkeypatch.setattr(tiny, "_refine", watch_refine)
    tiny(clip, iters=1, window_len=4)
    assert encoded == list(range(20))
    assert most == 4


def test_bfloat16_comes_near(tiny: AllTracker, clip: Tensor) -> None:
    clip = clip[:, :2]
    exact = tiny(clip).flow
    rounded = AllTracker("tiny").eval()
    rounded.load_state_dict(tiny.state_dict())
    rounded = rounded.bfloat16()(clip).flow
    assert rounded.dtype == torch.float32
    error = (rounded - exact).square().mean().sqrt()
    assert 0 < error < 0.1 * exact.square().mean().sqrt()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"driver": "forward"}, "driver"),
        ({"query_frame": 20}, "query_frame"),
        ({"query_frame": -1}, "query_frame"),
        ({"iters": 0}, "iters"),
        ({"window_len": 7}, "window_len"),
        ({"stride": 9}, "stride"),
        ({"stride": 0}, "stride"),
        ({"driver": "overwrite", "stride": 17}, "stride"),
    ],
)
def test_bad_options_are_refused(
    tiny: AllTracker, clip: Tensor, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UserError, match=reason):
        tiny(clip, **options)


@pytest.mark.parametrize("size", [(64, 80), (80, 64), (10, 10)])
def test_small_frames_are_a_bad_clip(tiny: AllTracker, size: tuple[int, int]) -> None:
    with pytest.raises(ClipError, match="too small"):
        tiny(torch.zeros(1, 3, 3, *size))


def test_smallest_frames_work(tiny: AllTracker) -> None:
    assert tiny(torch.zeros(1, 2, 3, 65, 65)).flow.isfinite().all()


@pytest.mark.parametrize("value", [-1.0, 256.0, float("nan")])
def test_pixel_values_out_of_range_are_refused(tiny: AllTracker, value: float) -> None:
    video = torch.zeros(1, 2, 3, 70, 70)
    video[0, 1, 2, 3, 4] = value
    with pytest.raises(UserError, match="0 to 255"):
        tiny(video)


@pytest.mark.parametrize("shape", [(2, 3, 70, 70), (1, 2, 4, 70, 70), (1, 0, 3, 70, 70)])
def test_other_shapes_are_refused(tiny: AllTracker, shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="shape"):
        tiny(torch.zeros(shape))


def test_variant_is_one_of_two() -> None:
    with pytest.raises(UserError, match="full"):
        AllTracker("small")
