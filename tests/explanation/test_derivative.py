"""The heat map against the inner product of whole gradients, and against finite differences."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from motive.backbones import load_backbone
from motive.backbones.base import Backbone
from motive.backbones.source import find_model
from motive.errors import ClipError
from motive.explanation.derivative import heat_map, unit_direction
from motive.gradients.clip_loss import ClipDraw, ClipInputs

TOLERANCE = 1e-4  # of the sum, in float32


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    found = load_backbone(find_model("tiny-wan"), dtype="float32", device="cpu")
    found.settle((751,))
    return found


@pytest.fixture(scope="module")
def denoiser(backbone: Backbone) -> torch.nn.Module:
    return backbone.load_denoiser().eval()


def draw_of(
    backbone: Backbone, seed: int, timestep: int = 751, weight: float | None = None
) -> ClipDraw:
    generator = torch.Generator().manual_seed(seed)
    latents, noise = torch.randn((2, 16, 3, 8, 8), generator=generator)
    clip = ClipInputs(
        latents,
        {"text": torch.randn((3, 64), generator=generator)},
        torch.rand((3, 8, 8), generator=generator),
        9,
        static=False,
    )
    return ClipDraw(
        backbone,
        clip,
        backbone.add_noise(latents, noise, timestep),
        backbone.target(latents, noise, timestep),
        timestep,
        weight,
        32,
    )


def parameters_of(denoiser: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    return dict(denoiser.named_parameters())


def whole_gradient(denoiser: torch.nn.Module, draw: ClipDraw) -> torch.Tensor:
    denoiser.zero_grad()
    draw.loss(draw.predict(denoiser)).backward()
    gradient = torch.cat([p.grad.flatten() for p in denoiser.parameters() if p.grad is not None])
    denoiser.zero_grad()
    return gradient.double()


def test_the_map_sums_to_the_cosine_of_whole_gradients(
    backbone: Backbone, denoiser: torch.nn.Module
) -> None:
    clip, query = draw_of(backbone, 1), draw_of(backbone, 2)
    direction = unit_direction(denoiser, parameters_of(denoiser), [query])
    heat_fhw = heat_map(denoiser, parameters_of(denoiser), [clip], direction)
    mine, theirs = whole_gradient(denoiser, clip), whole_gradient(denoiser, query)
    cosine = float(mine @ theirs / mine.norm() / theirs.norm())
    assert heat_fhw.shape == (3, 8, 8)
    assert float(heat_fhw.double().sum()) == pytest.approx(cosine, rel=TOLERANCE)


def test_several_draws_sum_to_the_cosine_of_averaged_units(
    backbone: Backbone, denoiser: torch.nn.Module
) -> None:
    clip = [draw_of(backbone, 1, 751, 2.0), draw_of(backbone, 3, 500, 0.5)]
    query = [draw_of(backbone, 2, 751, 2.0), draw_of(backbone, 4, 500, 0.5)]

    def feature(draws: list[ClipDraw]) -> torch.Tensor:
        units = []
        for draw in draws:
            gradient = whole_gradient(denoiser, draw)
            assert draw.weight is not None
            units.append(draw.weight * gradient / gradient.norm())
        mean = torch.stack(units).mean(0)
        return mean / mean.norm()

    direction = unit_direction(denoiser, parameters_of(denoiser), query)
    heat_fhw = heat_map(denoiser, parameters_of(denoiser), clip, direction)
    expected = float(feature(clip) @ feature(query))
    assert float(heat_fhw.double().sum()) == pytest.approx(expected, rel=TOLERANCE)


def test_every_location_is_a_finite_difference(
    backbone: Backbone, denoiser: torch.nn.Module
) -> None:
    clip, query = draw_of(backbone, 1), draw_of(backbone, 2)
    direction = unit_direction(denoiser, parameters_of(denoiser), [query])
    heat_fhw = heat_map(denoiser, parameters_of(denoiser), [clip], direction).double()
    step = 3e-3  # along a unit vector: float32 rounds below, the curvature shows above

    def moved(sign: float) -> torch.Tensor:
        network = copy.deepcopy(denoiser)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter += sign * step * direction[name]
            return clip.loss_map(clip.predict(network)).double()

    slope = (moved(1) - moved(-1)) / (2 * step) / whole_gradient(denoiser, clip).norm()
    error = (heat_fhw - slope).norm() / slope.norm()
    assert error < 0.01
    assert np.corrcoef(heat_fhw.flatten(), slope.flatten())[0, 1] > 0.9999


def test_a_location_without_weight_has_no_heat(
    backbone: Backbone, denoiser: torch.nn.Module
) -> None:
    clip, query = draw_of(backbone, 1), draw_of(backbone, 2)
    clip.clip.weights_fhw[1] = 0
    direction = unit_direction(denoiser, parameters_of(denoiser), [query])
    heat_fhw = heat_map(denoiser, parameters_of(denoiser), [clip], direction)
    assert (heat_fhw[1] == 0).all()
    assert heat_fhw[0].abs().min() > 0


def test_a_clip_on_itself_is_all_of_its_own_loss(
    backbone: Backbone, denoiser: torch.nn.Module
) -> None:
    clip = draw_of(backbone, 1)
    direction = unit_direction(denoiser, parameters_of(denoiser), [clip])
    heat_fhw = heat_map(denoiser, parameters_of(denoiser), [clip], direction)
    assert float(heat_fhw.double().sum()) == pytest.approx(1, rel=TOLERANCE)


def test_a_zero_gradient_has_no_direction(backbone: Backbone, denoiser: torch.nn.Module) -> None:
    still = draw_of(backbone, 1)
    still.clip.weights_fhw.zero_()
    with pytest.raises(ClipError, match="zero"):
        unit_direction(denoiser, parameters_of(denoiser), [still])


def test_a_frozen_part_stays_out(
    backbone: Backbone, denoiser: torch.nn.Module, tmp_path: Path
) -> None:
    chosen = {n: p for n, p in denoiser.named_parameters() if n.startswith("blocks.0.")}
    clip, query = draw_of(backbone, 1), draw_of(backbone, 2)
    direction = unit_direction(denoiser, chosen, [query])
    assert direction.keys() == chosen.keys()
    heat_fhw = heat_map(denoiser, chosen, [clip], direction)
    mine, theirs = (
        torch.cat(
            [
                g.flatten()
                for g in torch.autograd.grad(d.loss(d.predict(denoiser)), list(chosen.values()))
            ]
        ).double()
        for d in (clip, query)
    )
    cosine = float(mine @ theirs / mine.norm() / theirs.norm())
    assert float(heat_fhw.double().sum()) == pytest.approx(cosine, rel=TOLERANCE)


def test_recomputed_activations_change_nothing(
    backbone: Backbone, denoiser: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, query = draw_of(backbone, 1), draw_of(backbone, 2)
    maps, recomputed = [], []
    for cells in (2**30, 1):
        monkeypatch.setattr("motive.gradients.stage.CHECKPOINT_CELLS", cells)
        direction = unit_direction(denoiser, parameters_of(denoiser), [query])
        maps.append(heat_map(denoiser, parameters_of(denoiser), [clip], direction))
        recomputed.append(denoiser.is_gradient_checkpointing)
    assert recomputed == [False, True]
    torch.testing.assert_close(maps[0], maps[1], rtol=1e-4, atol=1e-8)
