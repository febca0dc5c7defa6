"""The network against golden vectors of the original.

They were made by the original network with generated weights on generated videos. Both are made
again here from one integer stream (splitmix64), bit by bit, and checked by their SHA-256 first.
"""

import hashlib
import json
import zlib
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from motive.motion.alltracker import AllTracker
from motive.motion.alltracker_update import convex_upsample

VARIANTS = ("full", "tiny")
# The frame whose intermediates are in the golden vectors of case s1.
FRAME = 5
DRIVERS = {"sliding": "sliding", "forward": "overwrite"}
GAINS = {
    "flow_head.2.weight": 0.25,
    "visconf_head.2.weight": 0.125,
    "upsample_weight.2.weight": 4.0,
    "update_block.final_conv.weight": 0.5,
}


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


@dataclass(frozen=True)
class Observed:
    """A run's intermediates: each module's inputs and outputs in order, and the one window's state."""

    inputs: dict[str, list[tuple[Any, ...]]]
    outputs: dict[str, list[Tensor]]
    state_fhw4: Tensor
    volumes: list[Tensor]


def observe(golden: Golden, case: str, iters: int) -> Observed:
    model, video = golden.model, golden.video(case)
    inputs: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    outputs: dict[str, list[Tensor]] = defaultdict(list)
    state_fhw4, volumes = torch.empty(0), []
    inner = model._refine

    def keep(name: str, given: tuple[Any, ...], output: Tensor) -> None:
        # Blocks write over their inputs later on: keep copies.
        inputs[name].append(tuple(x.clone() if isinstance(x, Tensor) else x for x in given))
        outputs[name].append(output.clone())

    def refine(query: Any, targets: list[list[Tensor]], state: Tensor, iters: int) -> Tensor:
        nonlocal state_fhw4
        features = inner(query, targets, state, iters)
        state_fhw4 = state
        query_nc = query.lookup.strips_snc.flatten(0, 1)
        volumes.extend(query_nc @ level.flatten(0, 1).T for level in targets[FRAME])
        return features

    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        # With the whole window in one chunk a block is called once per iteration.
        patch.setattr(model, "chunk_cells", 10**6)
        patch.setattr(model, "_refine", refine)
        for name, module in model.named_modules():
            if name:
                hook = module.register_forward_hook(lambda _, x, y, name=name: keep(name, x, y))
                stack.callback(hook.remove)
        model(video, iters=iters)
    return Observed(inputs, outputs, state_fhw4, volumes)


def pixels_to_map(x_fpc: Tensor) -> Tensor:
    """Frame 5 of temporal blocks' `(frames, pixels, channels)`: `(channels, 16, 24)`."""
    return x_fpc[FRAME].T.unflatten(1, (16, 24))


def test_intermediates_equal_the_originals(golden: Golden) -> None:
    seen = observe(golden, "s1", iters=4)

    def expect(name: str) -> Tensor:
        return golden.tensors[f"s1/mid/{name}"]

    assert torch.equal(golden.video("s1")[0, 0].byte(), golden.tensors["s1/video_frame0_u8"])
    assert_near(golden.model.time_emb, expect("time_emb"))
    trunk, encoder = {"full": ("cnn", "dot_conv"), "tiny": ("fnet", "fnet")}[golden.model.variant]
    # The query frame is encoded first, by itself, then frames 1 to 7 together.
    (queries, others), at = seen.outputs[encoder], FRAME - 1
    assert_near(queries[0, ::8], expect("fmap_query_frame0"))
    assert_near(others[at, ::8], expect("fmap_frame5"))
    assert_near(seen.inputs[trunk][1][0][at, :, 1::6, 2::6], expect("encoder_input_frame5"))
    prefix = "s1/mid/frame5/"
    stages = {key.removeprefix(prefix) for key in golden.tensors if key.startswith(prefix)}
    stages &= seen.outputs.keys()
    assert len(stages) == {"full": 7, "tiny": 6}[golden.model.variant]
    for stage in stages:
        assert_near(seen.outputs[stage][1][at, ::8, ::2, ::2], expect(f"frame5/{stage}"))
    for level, volume in enumerate(seen.volumes):
        assert_near(volume[::37], expect(f"frame5/corr_level{level}").flatten(1))

    cells = torch.stack(torch.meshgrid(torch.arange(24), torch.arange(16), indexing="xy"))
    block = "update_block"
    for i in range(2):
        correlations, flow = seen.inputs[f"{block}.motion_encoder"][i]
        assert_near(cells + flow[FRAME], expect(f"iter{i}/coords_frame5"))
        assert_near(correlations[FRAME, :, ::5, ::7], expect(f"iter{i}/corr_frame5"))
        compressed = pixels_to_map(seen.inputs[f"{block}.refine.0"][i][0])
        assert_near(compressed[::8], expect(f"iter{i}/frame5/{block}.compressor"))
        for name in (f"{block}.motion_encoder", *(f"{block}.refine.{n}" for n in (1, 3, 5)), block):
            ours = seen.outputs[name][i][FRAME]
            assert_near(ours[::8], expect(f"iter{i}/frame5/{name}"))
        for name in (f"{block}.refine.{n}" for n in (0, 2, 4)):
            ours = pixels_to_map(seen.outputs[name][i])
            assert_near(ours[::8], expect(f"iter{i}/frame5/{name}"))
    for i in range(4):
        for head in ("flow_head", "visconf_head"):
            assert_near(seen.outputs[head][i][:8], expect(f"iter{i}/{head}"))
    state_f4hw = seen.state_fhw4.permute(0, 3, 1, 2)
    assert_near(state_f4hw[:, :2], expect("flows8_final"))
    assert_near(state_f4hw[:, 2:], expect("visconfs8_final"))


def test_first_upsampling_equals_the_originals(golden: Golden) -> None:
    seen = observe(golden, "s1", iters=1)

    def expect(name: str) -> Tensor:
        return golden.tensors[f"s1/mid/iter0/frame5/{name}"]

    (weights,) = seen.outputs["upsample_weight"]
    assert_near(weights[FRAME, ::4, ::3, ::3], expect("upsample_weight"))
    frame = slice(FRAME, FRAME + 1)
    pixels = convex_upsample(seen.state_fhw4[frame], weights[frame])[0, :, ::3, ::3]
    assert_near(pixels[:2], expect("flow_up_padded"))
    assert_near(pixels[2:], expect("visconf_up_padded_logit"))
