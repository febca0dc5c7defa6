"""The network against golden vectors of the original, and what its drivers promise besides.

The golden vectors were made by the original network with generated weights on generated videos. Both are
made again here from one integer stream (splitmix64), bit by bit, and checked by their SHA-256 first.
"""

import hashlib
import json
import weakref
import zlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from motive.errors import ClipError, UserError
from motive.motion.alltracker import AllTracker
from motive.motion.alltracker_correlation import LEVELS
from motive.motion.alltracker_update import convex_upsample

VARIANTS = ("full", "tiny")
DRIVERS = {"sliding": "sliding", "forward": "overwrite"}
GAINS = {
    "flow_head.2.weight": 0.25,
    "visconf_head.2.weight": 0.125,
    "upsample_weight.2.weight": 4.0,
    "update_block.final_conv.weight": 0.5,
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    # Two threads on a busy machine of two cores spend most of their time waiting for each other.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def stream(name: str, salt: int, count: int) -> np.ndarray:
    """The splitmix64 stream of a name: `(count,)` uint64."""
    u64 = np.uint64
    with np.errstate(over="ignore"):
        seed = u64((zlib.crc32(name.encode()) + (salt << 32)) % 2**64)
        z = seed + np.arange(1, count + 1, dtype=u64) * u64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> u64(30))) * u64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> u64(27))) * u64(0x94D049BB133111EB)
    return z ^ (z >> u64(31))


def generate_weights(shapes: dict[str, torch.Size], salt: int) -> tuple[dict[str, Tensor], str]:
    """Weights for all keys but `time_emb`, and their SHA-256."""
    weights, digest = {}, hashlib.sha256()
    for key, shape in sorted(shapes.items()):
        if key == "time_emb":
            continue
        unit = (stream(key, salt, shape.numel()) >> np.uint64(11)).astype(np.float64) * 2.0**-53
        values = (2.0 * unit - 1.0) * np.sqrt(3.0)
        if key.endswith("layer_scale"):
            values = 0.25 + 0.05 * values
        elif key.endswith(".bias"):
            values = 0.05 * values
        elif len(shape) == 1:
            values = 1.0 + 0.1 * values
        else:
            values = values * (GAINS.get(key, 1.0) / np.sqrt(shape.numel() / shape[0]))
        values = values.astype("<f4")
        digest.update(key.encode())
        digest.update(values.tobytes())
        weights[key] = torch.from_numpy(values).view(shape)
    return weights, digest.hexdigest()


def noise(name: str, salt: int, height: int, width: int, cell: int) -> np.ndarray:
    shape = (3, height // cell + 2, width // cell + 2)
    lattice = (stream(name, salt, int(np.prod(shape))) >> np.uint64(56)).astype(int).reshape(shape)
    y, x = np.arange(height)[:, None], np.arange(width)
    (y0, fy), (x0, fx) = divmod(y, cell), divmod(x, cell)
    total = (
        lattice[:, y0, x0] * (cell - fy) * (cell - fx)
        + lattice[:, y0, x0 + 1] * (cell - fy) * fx
        + lattice[:, y0 + 1, x0] * fy * (cell - fx)
        + lattice[:, y0 + 1, x0 + 1] * fy * fx
    )
    return (total + cell * cell // 2) // (cell * cell)


def texture(name: str, salt: int, height: int, width: int) -> np.ndarray:
    coarse, fine = (noise(f"{name}/{c}", salt, height, width, c) for c in (16, 5))
    return (2 * coarse + fine) // 3


def generate_video(case: dict[str, Any]) -> np.ndarray:
    """A square moving over a moving background: `(T, 3, H, W)` uint8."""
    height, width, side, salt = case["H"], case["W"], case["side"], case["video_salt"]
    background = texture("bg", salt, height + 128, width + 128)
    square = texture("sq", salt, side, side)
    video = np.empty((case["T"], 3, height, width), np.uint8)
    for t, frame in enumerate(video):
        x, y = (64 - t * v for v in case["v_bg"])
        frame[:] = background[:, y : y + height, x : x + width]
        x, y = (p + t * v for p, v in zip(case["p0"], case["v_sq"], strict=True))
        top, left = max(y, 0), max(x, 0)
        bottom, right = min(y + side, height), min(x + side, width)
        frame[:, top:bottom, left:right] = square[:, top - y : bottom - y, left - x : right - x]
    return video


@dataclass(frozen=True)
class Golden:
    """The original's tensors for one variant, and our network with the same weights."""

    model: AllTracker
    tensors: dict[str, Tensor]
    cases: dict[str, dict[str, Any]]

    def video(self, name: str) -> Tensor:
        video = generate_video(self.cases[name])
        assert hashlib.sha256(video.tobytes()).hexdigest() == self.cases[name]["video_sha256"]
        return torch.from_numpy(video)[None].float()


@pytest.fixture(scope="module")
def load_golden(shared: Path) -> Callable[[str], Golden]:
    loaded: dict[str, Golden] = {}

    def load(variant: str) -> Golden:
        if variant not in loaded:
            path = shared / "alltracker" / f"golden_{variant}.safetensors"
            with safe_open(path, "pt") as file:
                meta = json.loads(file.metadata()["meta"])
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            model = AllTracker(variant).eval()
            shapes = {key: value.shape for key, value in model.state_dict().items()}
            weights, sha256 = generate_weights(shapes, meta["weight_salt"])
            assert sha256 == meta["weight_sha256"]
            model.load_state_dict(weights | {"time_emb": model.time_emb}, strict=True)
            loaded[variant] = Golden(model, tensors, meta["cases"])
        return loaded[variant]

    return load


@pytest.fixture(params=VARIANTS)
def golden(request: pytest.FixtureRequest, load_golden: Callable[[str], Golden]) -> Golden:
    return load_golden(request.param)


@pytest.fixture(scope="module")
def tiny() -> AllTracker:
    """A network with lively weights that needs no files: flows of some pixels."""
    model = AllTracker("tiny").eval()
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    weights, _ = generate_weights(shapes, salt=2)
    model.load_state_dict(weights | {"time_emb": model.time_emb})
    return model


@pytest.fixture(scope="module")
def clip() -> Tensor:
    """`(1, 20, 3, 70, 80)`"""
    case = {"T": 20, "H": 70, "W": 80, "video_salt": 5, "side": 30}
    case |= {"p0": (20, 10), "v_sq": (1, 1), "v_bg": (-1, 1)}
    return torch.from_numpy(generate_video(case))[None].float()


def assert_near(ours: Tensor, golden: Tensor) -> None:
    """Intermediates: 1e-4 of the largest value, or of 1."""
    atol = 1e-4 * max(1.0, golden.abs().max().item())
    torch.testing.assert_close(ours.float(), golden, atol=atol, rtol=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_state_dict_is_the_published_one(shared: Path, variant: str) -> None:
    listing = json.loads((shared / "alltracker" / f"state_dict_{variant}.json").read_text())
    model = AllTracker(variant)
    ours = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert ours == {key: entry["shape"] for key, entry in listing.items()}
    buffers = {key for key, entry in listing.items() if entry["kind"] == "buffer"}
    assert dict(model.named_buffers()).keys() == buffers


@pytest.mark.parametrize(
    ("case", "mode"),
    [
        ("p2", "sliding"),
        ("s1", "sliding"),
        pytest.param("s2", "sliding", marks=pytest.mark.slow),
        pytest.param("s2", "forward", marks=pytest.mark.slow),
        pytest.param("w8", "sliding", marks=pytest.mark.slow),
        pytest.param("m1", "sliding", marks=pytest.mark.slow),
    ],
)
def test_outputs_equal_the_originals(golden: Golden, case: str, mode: str) -> None:
    settings = golden.cases[case]
    windows = {name: settings[name] for name in ("window_len", "stride") if name in settings}
    video = golden.video(case)
    tracks = golden.model(video, driver=DRIVERS[mode], **windows)
    first = 1 if settings["T"] == 2 else 0
    flow, visconf = tracks.flow[0, first:], tracks.visconf[0, first:]
    flow_atol, visconf_atol = (2e-4, 2e-5) if case in {"s2", "w8"} else (1e-4, 1e-5)

    def check(name: str, ours: Tensor, atol: float) -> None:
        expected = golden.tensors[f"{case}/{mode}/{name}"]
        torch.testing.assert_close(ours.to(expected.dtype), expected, atol=atol, rtol=0)

    check("flow_sub", flow[:, :, 2::5, 3::5], flow_atol)
    check("visconf_sub", visconf[:, :, 2::5, 3::5], visconf_atol)
    check("flow_mean", flow.double().mean((2, 3)), flow_atol)
    check("flow_rms", flow.double().square().mean((2, 3)).sqrt(), flow_atol)
    check("visconf_mean", visconf.double().mean((2, 3)), visconf_atol)
    if case == "s1":
        check("flow_last_full", flow[-1], flow_atol)
        check("visconf_last_full", visconf[-1], visconf_atol)


def test_intermediates_equal_the_originals(golden: Golden) -> None:
    """Case s1, window frame 5 = clip frame 5, all modules on the way."""
    model, video = golden.model, golden.video("s1")
    outputs: dict[str, list[Tensor]] = defaultdict(list)
    handles = [
        module.register_forward_hook(
            # Blocks work in chunks and the caller may write over their results: keep copies.
            lambda _module, _inputs, output, name=name: outputs[name].append(output.clone())
        )
        for name, module in model.named_modules()
    ]
    refined: list[tuple[Tensor, Tensor]] = []
    with pytest.MonkeyPatch.context() as patch:
        # One chunk for the whole window: then a hook sees each module once per iteration.
        patch.setattr(model, "chunk_cells", 10**6)
        inner = model._refine

        def refine(query: Any, targets: Any, state: Tensor, iters: int) -> Tensor:
            features = inner(query, targets, state, iters)
            refined.append((state.clone(), features))
            correlations = [
                query.lookup.strips_snc.flatten(0, 1) @ level.flatten(0, 1).T
                for level in targets[5]
            ]
            outputs["volume"] += correlations
            return features

        patch.setattr(model, "_refine", refine)
        model(video)
    for handle in handles:
        handle.remove()

    def expect(name: str) -> Tensor:
        return golden.tensors[f"s1/mid/{name}"]

    assert (video[0, 0].byte() == golden.tensors["s1/video_frame0_u8"]).all()
    assert_near(model.time_emb, expect("time_emb"))
    for key in golden.tensors:
        module = key.removeprefix("s1/mid/frame5/")
        # Frame 0 is encoded by itself, then frames 1 to 7 together.
        if key.startswith("s1/mid/frame5/") and module in outputs:
            assert_near(outputs[module][1][4, ::8, ::2, ::2], golden.tensors[key])
    encoder = "dot_conv" if model.variant == "full" else "fnet"
    assert_near(outputs[encoder][0][0, ::8], expect("fmap_query_frame0"))
    assert_near(outputs[encoder][1][4, ::8], expect("fmap_frame5"))
    for level in range(LEVELS):
        ours = outputs["volume"][level][::37]
        assert_near(ours, expect(f"frame5/corr_level{level}").flatten(1))
    for i in range(2):
        block = "update_block"
        for name in ("motion_encoder", *(f"refine.{n}" for n in (1, 3, 5))):
            ours = outputs[f"{block}.{name}"][i][5, ::8]
            assert_near(ours, expect(f"iter{i}/frame5/{block}.{name}"))
        for n in (0, 2, 4):
            ours = outputs[f"{block}.refine.{n}"][i][5].T.unflatten(1, (16, 24))[::8]
            assert_near(ours, expect(f"iter{i}/frame5/{block}.refine.{n}"))
        assert_near(outputs[block][i][5, ::8], expect(f"iter{i}/frame5/{block}"))
    for i in range(4):
        for head in ("flow_head", "visconf_head"):
            assert_near(outputs[head][i][:8], expect(f"iter{i}/{head}"))
    ((state_fhw4, _),) = refined
    assert_near(state_fhw4[..., :2].permute(0, 3, 1, 2), expect("flows8_final"))
    assert_near(state_fhw4[..., 2:].permute(0, 3, 1, 2), expect("visconfs8_final"))


def test_first_iteration_equals_the_originals(golden: Golden) -> None:
    """What reaches the update and what leaves it: lookup, compressor and up-sampling of case s1."""
    seen: dict[str, Tensor] = {}
    model = golden.model

    def keep(name: str, select: Callable[[Any, Any], Tensor]) -> Callable[..., None]:
        def hook(_module: Any, inputs: Any, output: Any = None) -> None:
            seen[name] = select(inputs, output).clone()

        return hook

    motion, block = model.update_block.motion_encoder, model.update_block.refine[0]
    handles = [
        motion.register_forward_pre_hook(keep("corr", lambda inputs, _: inputs[0])),
        block.register_forward_pre_hook(keep("compressor", lambda inputs, _: inputs[0])),
        model.upsample_weight.register_forward_hook(keep("weights", lambda _, out: out)),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "chunk_cells", 10**6)
        inner = model._refine

        def refine(query: Any, targets: Any, state: Tensor, iters: int) -> Tensor:
            features = inner(query, targets, state, iters)
            seen["state"] = state
            return features

        patch.setattr(model, "_refine", refine)
        model(golden.video("s1"), iters=1)
    for handle in handles:
        handle.remove()

    def expect(name: str) -> Tensor:
        return golden.tensors[f"s1/mid/iter0/{name}"]

    assert_near(seen["corr"][5, :, ::5, ::7], expect("corr_frame5"))
    compressed = seen["compressor"][5].T.unflatten(1, (16, 24))
    assert_near(compressed[::8], expect("frame5/update_block.compressor"))
    assert_near(seen["weights"][5, ::4, ::3, ::3], expect("frame5/upsample_weight"))
    pixels = convex_upsample(seen["state"][5:6], seen["weights"][5:6])[0, :, ::3, ::3]
    assert_near(pixels[:2], expect("frame5/flow_up_padded"))
    assert_near(pixels[2:], expect("frame5/visconf_up_padded_logit"))


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
        assert torch.equal(joined[:, query], before[:, -1] if query == 4 else after[:, 0])


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
