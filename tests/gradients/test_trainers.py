"""Each trainer's objective against the trainer's own rule, written out here with torch and diffusers."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from diffusers import FlowMatchEulerDiscreteScheduler, WanTransformer3DModel
from hypothesis import given
from hypothesis import strategies as st
from test_gradient_stage import FRAMES, LATENT_SHAPE, Clip, stage_of

from motive import Run
from motive.errors import UserError
from motive.gradients import trainers
from motive.gradients.noise import shared_noise
from motive.gradients.trainers import TRAINERS, Draw, Trainer, trainer_draws

Rule = Callable[[float], tuple[float, float, float]]  # a uniform number to σ, told, weight


def diffsynth(uniform: float) -> tuple[float, float, float]:
    plain = torch.arange(1000, 0, -1, dtype=torch.float64) / 1000
    sigmas = 5 / (4 + 1 / plain)
    bell = (-2 * (sigmas - 0.5) ** 2).exp()
    weights = bell - bell.min()
    i = int(1000 * uniform)
    return float(sigmas[i]), float(1000 * sigmas[i]), float(weights[i] / weights.mean())


def musubi(uniform: float) -> tuple[float, float, float]:
    normal = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(uniform, dtype=torch.float64))
    sigma = float(3 / (2 + 1 / normal.sigmoid()))
    return sigma, 1000 * sigma + 1, 1


def finetrainers(uniform: float) -> tuple[float, float, float]:
    sigma = FlowMatchEulerDiscreteScheduler().sigmas[int(1000 * uniform)]
    return float(sigma), float((sigma * 1000.0).long()), 1


def diffusion_pipe(uniform: float) -> tuple[float, float, float]:
    grid = torch.linspace(1e-4, 1 - 1e-4, 10_000, dtype=torch.float64)
    sigma = float(torch.distributions.Normal(0.0, 1.0).icdf(grid)[int(10_000 * uniform)].sigmoid())
    return sigma, 1000 * sigma, 1


RULES: dict[str, Rule] = {
    "diffsynth": diffsynth,
    "musubi": musubi,
    "finetrainers": finetrainers,
    "diffusion-pipe": diffusion_pipe,
}


def require_rule(name: str, count: int) -> None:
    found = trainer_draws(name, "a model", "wan", count)
    assert len(found) == count
    for k, draw in enumerate(found):
        sigma, told, weight = RULES[name]((k + 0.5) / count)
        assert draw.timestep == pytest.approx(1000 * sigma, rel=1e-6)
        assert draw.told == pytest.approx(told, rel=1e-6)
        assert draw.weight == pytest.approx(weight, rel=1e-6)


@pytest.mark.parametrize("count", [1, 4, 7, 1000])
@pytest.mark.parametrize("name", RULES)
def test_the_draws_are_quantiles_of_the_trainers_rule(name: str, count: int) -> None:
    require_rule(name, count)


def test_numbers_that_anyone_can_check() -> None:
    assert trainer_draws("musubi", "m", "wan", 1)[0] == Draw(
        pytest.approx(750), pytest.approx(751), 1
    )
    assert trainer_draws("finetrainers", "m", "wan", 1)[0] == Draw(500, 500, 1)
    found = trainer_draws("diffsynth", "m", "wan", 1)[0]
    assert found.timestep == found.told == pytest.approx(1000 * 5 / 6)
    # In float32 a thousand times 0.251 is below 251.
    of_finetrainers = trainer_draws("finetrainers", "m", "wan", 1000)
    assert of_finetrainers[749] == Draw(pytest.approx(251), 250, 1)


@pytest.mark.parametrize("between", [None, (875.0, 1000.0), (0.0, 875.0), (300.0, 700.0)])
@pytest.mark.parametrize("name", RULES)
def test_many_draws_are_distributed_as_what_the_trainer_samples(
    name: str, between: tuple[float, float] | None
) -> None:
    """Also in a range: as the trainer's timesteps that fall into it."""
    uniform = np.random.default_rng(1).uniform(size=4000 if name == "musubi" else 1500)
    samples = np.array([1000 * RULES[name](float(u))[0] for u in uniform])
    low, high = between or (0.0, 1000.0)
    high += high == 1000  # which is included
    samples = np.sort(samples[(samples >= low) & (samples < high)])
    found = np.array([d.timestep for d in trainer_draws(name, "m", "wan", 500, between=between)])
    assert found.min() >= low
    assert found.max() < high
    at = np.linspace(low, high, 101)
    shares = [np.searchsorted(np.sort(x), at, side="right") / len(x) for x in (found, samples)]
    assert np.abs(shares[0] - shares[1]).max() < 1.7 / np.sqrt(len(samples))


@given(st.sampled_from(sorted(TRAINERS)), st.floats(0.5, 12), st.integers(1, 50))
def test_every_draw_is_a_timestep_of_the_model(name: str, shift: float, count: int) -> None:
    found = trainer_draws(name, "m", "wan", count, shift)
    assert all(0 < d.timestep <= 1000 and 0 <= d.told <= 1001 and d.weight >= 0 for d in found)
    assert sum(d.weight for d in found) > 0


def test_the_weights_are_one_on_average() -> None:
    weights = [d.weight for d in trainer_draws("diffsynth", "m", "wan", 1000)]
    assert np.mean(weights) == pytest.approx(1)
    assert min(weights) == 0


MUTANTS: dict[str, tuple[str, dict[str, object]]] = {
    "another shift": ("diffsynth", {"shifts": {"wan": 3.0}}),
    "no shift": ("musubi", {"shifts": {"wan": 1.0}}),
    "shifted where it is not": ("finetrainers", {"shifts": {"wan": 3.0}}),
    "shifted by the model's own": ("diffusion-pipe", {"shifts": {"wan": 3.0}}),
    "no weight": ("diffsynth", {"weight": lambda sigma, shift: 1.0}),
    "a weight with its minimum": (
        "diffsynth",
        {"weight": lambda sigma, shift: trainers._bell(sigma)},
    ),
    "weighted where it is not": ("musubi", {"weight": trainers._diffsynth_weight}),
    "no offset": ("musubi", {"told": lambda sigma: 1000 * sigma}),
    "an offset of another's": ("diffusion-pipe", {"told": lambda sigma: 1000 * sigma + 1}),
    "rounded up": ("finetrainers", {"told": lambda sigma: np.ceil(1000 * sigma) + 1}),
    "uniform": ("musubi", {"sigma": trainers._diffsynth_sigma}),
    "not uniform": ("diffsynth", {"sigma": trainers._musubi_sigma}),
    "σ the other way round": (
        "diffusion-pipe",
        {"sigma": lambda u, shift: 1 - trainers._diffusion_pipe_sigma(u, shift)},
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_is_caught(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, changes = MUTANTS[mutant]
    changed: Trainer = dataclasses.replace(TRAINERS[name], **changes)  # type: ignore[arg-type]
    monkeypatch.setitem(TRAINERS, name, changed)
    with pytest.raises(AssertionError):
        require_rule(name, 4)


# --- the loss and the feature


def objective_of(name: str, count: int) -> dict[str, object]:
    """The fields of an objective, as `motive.plan` fills them."""
    draws = trainer_draws(name, "small", "wan", count)
    return {
        "trainer": name,
        "timesteps": tuple(d.timestep for d in draws),
        "told": tuple(d.told for d in draws),
        "weights": tuple(d.weight for d in draws),
    }


def plain_draw(
    model: WanTransformer3DModel, clip: Clip, draw: int, rule: tuple[float, float, float]
) -> tuple[np.ndarray, float]:
    """The gradient and the value of one draw's loss, with nothing of ours but the noise."""
    sigma, told, weight = rule
    latents, noise = torch.from_numpy(clip.latents), shared_noise(5, LATENT_SHAPE, draw)
    prompt = torch.cat([torch.from_numpy(clip.text), torch.zeros(18, 16)])[None]
    noisy = torch.lerp(latents, noise, sigma)
    velocity = model(noisy[None], torch.tensor([told], dtype=torch.float32), prompt).sample[0]
    error = (velocity - (noise - latents)) ** 2
    loss = weight * (torch.from_numpy(clip.mask()).float() * error).mean() / FRAMES
    parameters = dict(sorted(model.named_parameters()))
    gradients = torch.autograd.grad(loss, list(parameters.values()))
    return np.concatenate([g.flatten().double().numpy() for g in gradients]), loss.item()


def require_plain(small_wan: Path, name: str, count: int = 3, **changes: object) -> None:
    transformer = WanTransformer3DModel.from_pretrained(small_wan / "transformer").eval()
    stage = stage_of(small_wan, **(objective_of(name, count) | changes))
    row = stage.process(Clip(1).row())
    rules = [RULES[name]((k + 0.5) / count) for k in range(count)]
    found = [plain_draw(transformer, Clip(1), k, rule) for k, rule in enumerate(rules)]
    assert row["loss"] == pytest.approx(np.mean([loss for _, loss in found]), rel=1e-5)
    assert row["norm"] == pytest.approx(np.mean([np.linalg.norm(g) for g, _ in found]), rel=1e-5)
    mean = sum(rule[2] * g / np.linalg.norm(g) for rule, (g, _) in zip(rules, found, strict=True))
    assert np.abs(row["feature"] - mean / np.linalg.norm(mean)).max() < 1e-5


@pytest.mark.parametrize("name", RULES)
def test_the_feature_is_of_the_trainers_loss(small_wan: Path, name: str) -> None:
    require_plain(small_wan, name)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("diffsynth", {"weights": ()}),
        ("diffsynth", {"weights": (1.0, 2.0, 3.0)}),
        ("musubi", {"told": ()}),
        ("musubi", {"timesteps": objective_of("musubi", 3)["told"]}),
        ("diffusion-pipe", {"timesteps": (500.0, 500.0, 500.0)}),
        ("finetrainers", {"noise_seed": 6}),
    ],
)
def test_another_objective_is_another_feature(
    small_wan: Path, name: str, changes: dict[str, object]
) -> None:
    with pytest.raises(AssertionError):
        require_plain(small_wan, name, **changes)


def test_a_weight_of_the_loss_counts_in_the_average_of_units(small_wan: Path) -> None:
    """Weights in the loss alone would be normalised away: the feature would be that of equal weights."""
    of_trainer = objective_of("diffsynth", 3)
    weighted = stage_of(small_wan, **of_trainer).process(Clip(1).row())
    equal = stage_of(small_wan, **(of_trainer | {"weights": ()})).process(Clip(1).row())
    assert weighted["feature"] @ equal["feature"] < 0.999
    one = objective_of("diffsynth", 1)
    alone = stage_of(small_wan, **one).process(Clip(1).row())
    as_it_is = stage_of(small_wan, **(one | {"weights": ()})).process(Clip(1).row())
    assert np.abs(alone["feature"] - as_it_is["feature"]).max() < 1e-6
    assert alone["loss"] == pytest.approx(one["weights"][0] * as_it_is["loss"])  # type: ignore[index]


def test_in_a_batch_it_is_the_same(small_wan: Path) -> None:
    stage = stage_of(small_wan, **objective_of("diffsynth", 2))
    alone = [stage.process(Clip(seed).row()) for seed in range(3)]
    for one, other in zip(
        stage.process_batch([Clip(s).row() for s in range(3)]), alone, strict=True
    ):
        assert isinstance(one, dict)
        assert np.abs(one["feature"] - other["feature"]).max() < 1e-5
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)


# --- in a run


def run_of(small_wan: Path, zoo: Path, path: Path, **settings: object) -> Run:
    named = {f"gradients__{name}": value for name, value in settings.items()}
    return Run.create(path, clips=str(zoo), queries=str(zoo), model=str(small_wan), **named)


def test_a_run_records_its_trainer_and_keeps_to_it(
    small_wan: Path, zoo: Path, tmp_path: Path
) -> None:
    run = run_of(small_wan, zoo, tmp_path / "run", trainer="diffsynth", draws=2)
    expected = objective_of("diffsynth", 2) | {"told": ()}  # told what they are
    found = dataclasses.asdict(run.objective)
    assert {name: found[name] for name in expected} == expected
    record = yaml.safe_load((tmp_path / "run" / "run.yaml").read_text())
    assert record["objective"]["trainer"] == record["config"]["gradients"]["trainer"] == "diffsynth"
    assert Run.open(tmp_path / "run").objective == run.objective
    with pytest.raises(UserError, match="trainer is diffsynth there and paper now"):
        run_of(small_wan, zoo, tmp_path / "run")
    musubi = run_of(small_wan, zoo, tmp_path / "other", trainer="musubi").objective
    assert musubi.told == (pytest.approx(751),)
    assert musubi.weights == ()
    paper = run_of(small_wan, zoo, tmp_path / "paper").objective
    assert (paper.timesteps, paper.told, paper.weights, paper.trainer) == ((751,), (), (), "paper")


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"draws": 4}, "are of a trainer's objective: name it with --trainer"),
        ({"shift": 5.0}, "are of a trainer's objective"),
        ({"trainer": "musubi", "timestep": 500}, "musubi draws its own timesteps: use --draws"),
        ({"trainer": "musubi", "timestep_range": (700, 600)}, "no timestep lies in 700,600"),
        ({"trainer": "other"}, "the setting gradients.trainer is wrong"),
        ({"trainer": "musubi", "shift": 0}, "the setting gradients.shift is wrong"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    small_wan: Path, zoo: Path, tmp_path: Path, settings: dict[str, object], complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint):
        run_of(small_wan, zoo, tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_a_family_that_a_trainer_does_not_train_is_refused() -> None:
    with pytest.raises(UserError, match=r"diffsynth trains x \(mochi\) .* use --trainer paper$"):
        trainer_draws("diffsynth", "x", "mochi", 1)
    with pytest.raises(
        UserError, match="use --trainer paper or --trainer musubi or --trainer diffu"
    ):
        trainer_draws("finetrainers", "x", "hunyuan-video-1.5", 1)
