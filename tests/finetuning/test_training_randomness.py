"""Order, timesteps and noise: functions of what they are for, shared between trainings on other subsets."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from invented import backbone_of, build_modelscope

from motive.errors import UserError
from motive.finetuning.randomness import ClipOrder, draw_at, noise_at, training_draws

IDS = st.lists(
    st.text("abcdef0123456789", min_size=1, max_size=6), min_size=1, max_size=9, unique=True
)


@given(IDS, st.integers(0, 1000), st.integers(0, 5))
def test_every_clip_is_shown_once_in_each_epoch(ids: list[str], seed: int, epoch: int) -> None:
    order = ClipOrder(ids, seed)
    shown = [order[position] for position in range(epoch * len(ids), (epoch + 1) * len(ids))]
    assert sorted(shown) == list(range(len(ids)))


@given(IDS, st.integers(0, 1000), st.data())
def test_the_order_in_a_subset_is_that_in_the_whole(
    ids: list[str], seed: int, data: st.DataObject
) -> None:
    kept = data.draw(st.lists(st.sampled_from(ids), min_size=1, unique=True))
    whole, part = ClipOrder(ids, seed), ClipOrder(kept, seed)
    of_whole = [ids[whole[p]] for p in range(len(ids))]
    of_part = [kept[part[p]] for p in range(len(kept))]
    assert of_part == [clip_id for clip_id in of_whole if clip_id in kept]


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    ids = [f"clip {i}" for i in range(20)]
    orders = [
        [ClipOrder(ids, seed)[20 * epoch + p] for p in range(20)]
        for seed in (0, 1)
        for epoch in (0, 1)
    ]
    assert len({tuple(order) for order in orders}) == 4


def test_a_shorter_clip_has_the_leading_part_of_a_longer_ones_noise() -> None:
    long, short = noise_at(3, 11, (16, 9, 4, 6)), noise_at(3, 11, (16, 5, 4, 6))
    assert torch.equal(long[:, :5], short)
    assert not torch.equal(noise_at(3, 12, (16, 5, 4, 6)), short)
    assert not torch.equal(noise_at(4, 11, (16, 5, 4, 6)), short)


def test_noise_is_standard_normal_whatever_the_position() -> None:
    numbers = torch.cat([noise_at(0, p, (4, 4, 8, 8)).flatten() for p in range(200)]).double()
    count = len(numbers)
    assert abs(float(numbers.mean())) < 5 / count**0.5
    assert abs(float(numbers.var()) - 1) < 5 * (2 / count) ** 0.5
    pairs = torch.corrcoef(torch.stack([noise_at(0, p, (4, 4, 8, 8)).flatten() for p in range(30)]))
    assert float((pairs - torch.eye(30)).abs().max()) < 0.2


def test_uniform_timesteps_of_a_flow_model_are_shifted_as_its_scheduler(small_wan: Path) -> None:
    draws = training_draws(backbone_of(small_wan), "uniform", None, None)
    unshifted = np.array([d.timestep / 1000 for d in draws])
    u = unshifted / (3 - 2 * unshifted)  # the inverse of 3u / (1 + 2u)
    assert np.allclose(np.sort(u), (np.arange(len(draws)) + 0.5) / len(draws), atol=1e-9)
    assert all(d.told == d.timestep and d.weight == 1 for d in draws)
    wide = training_draws(backbone_of(small_wan), "uniform", 1.0, None)
    assert np.mean([d.timestep for d in wide]) == pytest.approx(500)


def test_a_range_keeps_the_distribution_inside(small_wan: Path) -> None:
    backbone = backbone_of(small_wan)
    inside = [d.timestep for d in training_draws(backbone, "uniform", None, (875, 1000))]
    whole = [d.timestep for d in training_draws(backbone, "uniform", None, None)]
    assert min(inside) >= 875
    assert max(inside) <= 1000
    assert np.mean(inside) == pytest.approx(np.mean([t for t in whole if t >= 875]), abs=0.1)


def test_a_trainers_grid_is_drawn_from_as_the_trainer_draws(small_wan: Path) -> None:
    draws = training_draws(backbone_of(small_wan), "diffsynth", None, None)
    counts = Counter(round(d.timestep, 6) for d in draws)
    assert len(counts) == 1000
    assert set(counts.values()) == {10}
    assert np.mean([d.weight for d in draws]) == pytest.approx(1)


def test_diffusion_draws_each_of_its_timesteps(tmp_path: Path) -> None:
    backbone = backbone_of(build_modelscope(tmp_path, "epsilon"))
    assert [d.timestep for d in training_draws(backbone, "uniform", None, None)] == list(
        range(1, 1001)
    )
    some = training_draws(backbone, "uniform", None, (100, 103))
    assert [d.timestep for d in some] == [100, 101, 102]
    with pytest.raises(UserError, match="leave out --shift"):
        training_draws(backbone, "uniform", 3.0, None)
    with pytest.raises(UserError, match="wider --timestep-range"):
        training_draws(backbone, "uniform", None, (2000, 3000))
    with pytest.raises(UserError, match="there are no timesteps of 'mine'"):
        training_draws(backbone, "mine", None, None)
    with pytest.raises(UserError, match="diffsynth"):
        training_draws(backbone, "diffsynth", None, None)


def test_positions_draw_all_timesteps_alike(small_wan: Path) -> None:
    draws = training_draws(backbone_of(small_wan), "uniform", 1.0, None)
    drawn = [draw_at(draws, 0, position).timestep for position in range(4000)]
    counts, _ = np.histogram(drawn, bins=10, range=(0, 1000))
    assert float(((counts - 400) ** 2 / 400).sum()) < 27.9  # χ² of 9 degrees, one in a thousand
    assert drawn != [draw_at(draws, 1, position).timestep for position in range(4000)]
