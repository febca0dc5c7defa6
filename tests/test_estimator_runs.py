"""Runs under each estimator against the plain functions, on whole gradients that nothing of ours computed.

Only latents, embeddings, masks and the shared noise are taken from the run: the model is diffusers', the
gradients are autograd's, and `motive.influence.estimators` makes scores of them.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors import safe_open

from motive import Run, UserError
from motive.backbones.encode import tensors_of
from motive.explanation import explain
from motive.gradients import second_moments
from motive.gradients.counter import key
from motive.gradients.noise import shared_noise
from motive.gradients.projection import make_projection
from motive.influence.estimators import (
    ESTIMATORS,
    Side,
    averaged,
    estimator_named,
    with_floor,
)
from motive.motion.masks import motion_mask, pool_frames
from motive.motion.track import maps_of
from motive.record import read_record
from motive.rows import gradient_rows
from motive.runs.config import RunConfig, flatten, make_config
from motive.runs.members import Member, Role
from motive.runs.progress import Progress
from motive.subsets import choose_subset
from motive.zoo.render import render_corpus, write_mp4

CLIPS, QUERIES, SEED, SHIFT = 4, 2, 3, 3.0
# Of the largest score in a row: sums of some 20,000 products of float32 gradients, in another order.
TOLERANCE = 2e-5
DIM = 64  # of the ridge, which whole gradients are too long for


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips of two lengths and one without motion, against two others."""
    folder = tmp_path_factory.mktemp("estimated")
    render_corpus(folder / "clips", CLIPS, seed=5, lengths=(5, 9))
    (folder / "clips" / "metadata.csv").unlink()
    write_mp4(folder / "clips" / "still.mp4", np.full((9, 32, 32, 3), 128, np.uint8), 16)
    render_corpus(folder / "queries", QUERIES, seed=6, lengths=(9,))
    return folder


def settings(datasets: Path, model: Path, **more: object) -> dict[str, object]:
    return {
        "clips": str(datasets / "clips"), "queries": str(datasets / "queries"), "model": str(model),
        "seed": SEED, "gradients.projection": "identity", **more,
    }  # fmt: skip


@pytest.fixture(scope="module")
def encoded(datasets: Path, small_wan: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of the paper's estimator with everything before the gradients."""
    config = make_config(settings(datasets, small_wan))
    run = Run.create_from(config, tmp_path_factory.mktemp("runs") / "run")
    for stage in ("ingest", "track", "encode"):
        getattr(run, stage)()
    return run


class Plain:
    """Gradients of the run's clips and queries without the gradient stage."""

    def __init__(self, run: Run, model: Path) -> None:
        self.run = run
        self.model = WanTransformer3DModel.from_pretrained(model / "transformer").eval()
        self.members: dict[Role, list[Member]] = {
            "clip": sorted(run.usable("clip").values(), key=lambda m: m.clip_id),
            "query": list(run.usable("query").values()),
        }
        self.known: dict[object, np.ndarray] = {}
        squares = [
            self.gradient(m, 1.0, t, key(SEED, "second moments"), k) ** 2
            for m in self.members["clip"]
            for k, t in enumerate(quantiles(4))
        ]
        v = np.mean(squares, axis=0)
        self.metric = (v + 1e-3 * v.mean()) ** -0.25
        self.metric /= self.metric.mean()

    def gradient(
        self, member: Member, plain: float, timestep: float, seed: int = SEED, draw: int = 0
    ) -> np.ndarray:
        """Of the masked loss, or with `plain` 1 of the plain one; parameters by sorted name."""
        about = member.feature_key, plain, timestep, seed, draw
        if about not in self.known:
            self.known[about] = self._gradient(member, plain, timestep, seed, draw)
        return self.known[about]

    def _gradient(
        self, member: Member, plain: float, timestep: float, seed: int, draw: int
    ) -> np.ndarray:
        (row,) = gradient_rows([member], self.run.plan, self.run.store)
        latents, text = tensors_of(row["video"])["latents"], tensors_of(row["text"])["text"]
        noise = shared_noise(seed, tuple(latents.shape), draw)
        noisy = (1 - timestep / 1000) * latents + timestep / 1000 * noise
        prompt = torch.cat([text, torch.zeros(24 - len(text), 16)])[None]
        prediction = self.model(noisy[None], torch.tensor([timestep]), prompt).sample[0]
        mask = motion_mask(maps_of(row["motion"]), "paper", static_below=0.1)
        frames = [range(1), *(range(4 * k - 3, 4 * k + 1) for k in range(1, latents.shape[1]))]
        weight = (
            torch.ones_like(latents[0]) if plain else torch.from_numpy(pool_frames(mask, frames))
        )
        loss = (weight * (prediction - (noise - latents)) ** 2).mean()
        parameters = dict(self.model.named_parameters())
        found = torch.autograd.grad(loss, list(parameters.values()))
        by_name = dict(zip(parameters, found, strict=True))
        return np.concatenate([by_name[n].flatten().numpy() for n in sorted(by_name)]).astype(float)

    def side(self, name: str, role: Role) -> np.ndarray:
        """The averaged features `(N, D)` of one side of an estimator."""
        estimator = estimator_named(name)
        side: Side = estimator.clips if role == "clip" else estimator.queries
        timesteps = [751.0] if estimator.units else quantiles(estimator.clips.draws)
        times = side.draws // estimator.clips.draws

        def of(plain: float) -> np.ndarray:
            draws = [
                [self.gradient(m, plain, t, draw=k) for m in self.members[role]]
                for k, t in enumerate(timesteps * times)
            ]
            return averaged(np.array(draws), units=estimator.units)

        plain = np.zeros(()) if side.floor == 0 else of(1)
        features = plain if side.floor is None else with_floor(of(0), plain, side.floor)
        return features * self.metric if estimator.preconditioned else features


def quantiles(count: int) -> list[float]:
    """1000 σ of the middle of `count` equal parts of what training draws from, σ = shifted uniform."""
    grid = [(k + 0.5) / 10_000 for k in range(10_000)]
    chosen = [grid[int((k + 0.5) * 10_000 / count)] for k in range(count)]
    return [1000 * SHIFT * u / (1 + (SHIFT - 1) * u) for u in chosen]


@pytest.fixture(scope="module")
def plain(encoded: Run, small_wan: Path) -> Plain:
    return Plain(encoded, small_wan)


def scores_of(run: Run) -> np.ndarray:
    """Of `scores.parquet`, queries in dataset order, clips by id."""
    found = pq.read_table(run.path / "scores.parquet").to_pydict()
    columns = (found["query_id"], found["clip_id"], found["score"])
    by_pair = {(q, c): s for q, c, s in zip(*columns, strict=True)}
    clips = sorted(run.usable("clip"))
    return np.array([[by_pair[q, c] for c in clips] for q in run.usable("query")])


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape == (QUERIES, CLIPS + 1)
    error = np.abs(found - expected).max(1) / np.abs(expected).max(1)
    assert error.max() < TOLERANCE
    assert (np.ptp(expected, axis=1) > 100 * TOLERANCE * np.abs(expected).max(1)).all()


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if name != "ridge"])
def test_a_runs_scores_are_the_plain_functions(name: str, encoded: Run, plain: Plain) -> None:
    run = encoded.with_estimator(name)
    run.gradients()
    run.score()
    expected = estimator_named(name).scores(plain.side(name, "query"), plain.side(name, "clip"))
    assert_close(scores_of(run), expected)
    still = sorted(run.usable("clip")).index(
        next(i for i, m in run.usable("clip").items() if m.file_name == "still.mp4")
    )
    masked = name in ("paper", "centred")
    assert (scores_of(run)[:, still] == 0).all() == masked
    about = pq.read_metadata(run.path / "scores.parquet").metadata
    assert about[b"estimator"].decode() == name
    passes = estimator_named(name).passes
    assert tuple(run.info()["estimator"]["passes"].values()) == passes


def test_ridge_in_projected_dimensions(encoded: Run, plain: Plain, tmp_path: Path) -> None:
    more = {
        "gradients.projection": "fastfood",
        "gradients.dim": DIM,
        "gradients.estimator": "ridge",
    }
    run = variant(encoded, tmp_path / "run", more)
    run.gradients()
    run.score()
    parameters = dict(plain.model.named_parameters())
    projection = make_projection("fastfood", DIM, SEED, {n: p.shape for n, p in parameters.items()})

    def projected(gradient: np.ndarray) -> np.ndarray:
        projection.begin()
        start = 0
        for name in sorted(parameters):
            part = gradient[start : start + parameters[name].numel()]
            projection.add(name, torch.from_numpy(part).float().view_as(parameters[name]))
            start += parameters[name].numel()
        return projection.finish()

    sides = [
        np.stack([projected(g) for g in plain.side("ridge", role)]) for role in ("query", "clip")
    ]
    assert_close(scores_of(run), estimator_named("ridge").scores(*sides))


def test_a_ridge_of_whole_gradients_is_refused(encoded: Run) -> None:
    with pytest.raises(UserError, match="use a projection with --dim 8192 or less"):
        encoded.with_estimator("ridge")


def test_settings_of_one_draw_are_refused_where_draws_are_averaged(
    datasets: Path, small_wan: Path, tmp_path: Path
) -> None:
    more = {"gradients.estimator": "effect", "gradients.timestep": 500}
    with pytest.raises(UserError, match="averages over the timesteps of training: use --draws"):
        Run.create_from(make_config(settings(datasets, small_wan, **more)), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match=r"setting gradients\.estimator is wrong"):
        make_config({**settings(datasets, small_wan), "gradients.estimator": "tracin"})


def variant(run: Run, place: Path, changed: dict[str, object]) -> Run:
    """A copy of the run with other settings, and without second moments."""
    shutil.copytree(run.path, place, ignore=shutil.ignore_patterns("preconditioner"))
    config = make_config({**flatten(run.config.model_dump()), **changed})
    made = Run(place, config, record=read_record(place / "run.yaml"))
    made.keep()
    return made


def test_scores_of_another_estimator_are_not_taken(encoded: Run, tmp_path: Path) -> None:
    run = variant(encoded, tmp_path / "run", {})
    run.gradients()
    run.score()
    run.select()
    before = (run.path / "selection.csv").read_bytes()
    centred = run.with_estimator("centred")
    with pytest.raises(
        UserError, match="made by the estimator paper, and the run's is centred: run"
    ):
        centred.select()
    fewer = variant(
        encoded, tmp_path / "fewer", {"gradients.draws": 2, "gradients.estimator": "effect"}
    )
    with pytest.raises(
        UserError, match="queries have no gradient feature yet: run motive gradients"
    ):
        fewer.score()
    assert Run.open(run.path).config == run.config
    centred.score()
    centred.keep()
    opened = Run.open(run.path)
    opened.select()
    assert opened.plan.estimator.name == "centred"
    assert opened.info()["estimator"]["name"] == "centred"
    assert (run.path / "selection.csv").read_bytes() != before
    with pytest.raises(UserError, match=r"gradients\.estimator is centred there and paper"):
        Run.create_from(run.config, run.path)
    clip, query = next(iter(run.usable("clip"))), next(iter(run.usable("query")))
    with pytest.raises(UserError, match="not known of the estimator centred: use a run of the"):
        explain(opened, clip, query)
    other = replace(opened.objective, floor=0.3)
    foreign = replace(opened.features("query"), objective=other)
    with pytest.raises(UserError, match=r"floor is 0\.0 for this run and 0\.3 for the queries"):
        opened.score_features(foreign)


def test_the_paper_without_its_mask_is_the_same_baseline_under_every_estimator(
    encoded: Run, tmp_path: Path
) -> None:
    run = variant(encoded, tmp_path / "run", {})
    run.gradients()
    expected = choose_subset(run, "no-mask", fraction=0.5)
    other = run.with_estimator("motion-effect")
    other.gradients()
    assert choose_subset(other, "no-mask", fraction=0.5).clip_ids == expected.clip_ids
    other = run.with_estimator("no-mask")
    other.gradients()
    assert choose_subset(other, "no-mask", fraction=0.5).clip_ids == expected.clip_ids


FEW = {"gradients.estimator": "motion-effect", "gradients.draws": 2}


@pytest.fixture(scope="module")
def undisturbed(encoded: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = variant(encoded, tmp_path_factory.mktemp("undisturbed") / "run", FEW)
    run.gradients()
    return run


class Stopping(Progress):
    """Interrupts the run after so many items of a stage."""

    def __init__(self, name: str, items: int) -> None:
        super().__init__(quiet=True)
        self.name, self.items = name, items

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Callable[[str], None]]:
        left = [self.items if name == self.name else total + 1]

        def advance(item: str) -> None:
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt

        yield advance


def test_an_interrupted_run_ends_as_an_undisturbed_one(
    encoded: Run, undisturbed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(second_moments, "_SAVE_SECONDS", -1.0)
    monkeypatch.setattr(second_moments, "_SAVE_SHARE", 0)
    run = variant(encoded, tmp_path / "run", FEW)
    for stage, items in (("second moments", 3), ("gradients", 2), ("query gradients", 1)):
        with pytest.raises(KeyboardInterrupt):
            Run.open(run.path, Stopping(stage, items)).gradients()
        if stage == "second moments":
            (unfinished,) = (run.path / "preconditioner").glob("*.unfinished.safetensors")
            with safe_open(unfinished, "pt") as kept:
                assert len(kept.metadata()["keys"].split()) == items
    Run.open(run.path).gradients()
    assert not unfinished.exists()
    run = Run.open(run.path)
    assert run.objective == undisturbed.objective
    for role in ("clip", "query"):
        mine, theirs = run.features(role), undisturbed.features(role)
        np.testing.assert_array_equal(mine.features_nd, theirs.features_nd)
        np.testing.assert_array_equal(mine.norms, theirs.norms)


def test_features_do_not_depend_on_the_batch(
    encoded: Run, undisturbed: Run, tmp_path: Path
) -> None:
    run = variant(encoded, tmp_path / "run", {**FEW, "compute.batch": 1})
    run.gradients()
    assert run.objective == undisturbed.objective
    for role in ("clip", "query"):
        mine, theirs = run.features(role), undisturbed.features(role)
        assert np.abs(mine.features_nd - theirs.features_nd).max() < 1e-5
        np.testing.assert_allclose(mine.norms, theirs.norms, rtol=1e-5)


def test_second_moments_are_made_once_and_kept(
    encoded: Run, undisturbed: Run, tmp_path: Path
) -> None:
    """Clips that come later are scaled as those before; a file that is not what was written is refused."""
    run = Run.open(shutil.copytree(undisturbed.path, tmp_path / "run"))
    recorded = (run.path / "run.yaml").read_text()
    assert "query_objective_id" in recorded
    assert run.objective.preconditioner in recorded
    (record,) = (run.path / "preconditioner").glob("*.json")
    written, objective = record.read_bytes(), run.objective
    render_corpus(tmp_path / "more", 2, seed=9, lengths=(9,))
    (tmp_path / "more" / "metadata.csv").unlink()
    more = RunConfig(**{**run.config.model_dump(), "clips": str(tmp_path / "more")})
    run = Run.create_from(more, run.path)
    for stage in ("ingest", "track", "encode", "gradients", "score"):
        getattr(run, stage)()
    assert (record.read_bytes(), run.objective) == (written, objective)
    assert len(run.features("clip").members) == 2
    (tensors,) = (run.path / "preconditioner").glob("*.safetensors")
    content = bytearray(tensors.read_bytes())
    content[-1] ^= 1
    tensors.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"cannot be read \(it is not what was written\): remove"):
        run.plan.moments_file.load(objective.preconditioner)
