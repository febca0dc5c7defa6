"""Whole gradients of clips and queries: their products parameter by parameter, and their projections.

A whole gradient of `tiny-wan` has 2.4 million numbers. Those of the queries are held; those of the clips are
multiplied with them, projected and let go, a batch at a time. Each batch is a file of its own: an interrupted
study goes on where it was.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from ablation_setting import NESTED, Study
from counterfactual_gradients import Gradients

from motive.gradients.projection import Projection, make_projection
from motive.runs.members import Role

PRODUCTS = "products"

Gradient = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Projected:
    """One projection; of a nested kind the widest, whose first rows are the others."""

    kind: str
    seed: int
    dim: int

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.seed}-{self.dim}"


class WholeGradients(Gradients):
    """Masked gradients at the paper's timestep, not normalised, of everything that moves.

    The noise is the product's, so that these are the very gradients that the run's features are of.
    """

    def __init__(self, study: Study) -> None:
        super().__init__(study.corpus, study.work / "whole", study.setting.dim)
        self.study = study
        objective = study.paper
        (self.timestep,) = objective.timesteps
        self.noise = (objective.noise_seed, 0)

    @cached_property
    def names(self) -> list[str]:
        """Of the parameters."""
        return list(self.parameters)

    @cached_property
    def sizes(self) -> np.ndarray:
        """How many numbers each parameter has."""
        return np.array([p.numel() for p in self.parameters.values()])

    def products(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """By parameter: products of queries and clips `(P, Q, N)`, squared norms `(P, Q)`, `(P, N)`."""
        clips, queries = (self._collected(role, PRODUCTS) for role in ("clip", "query"))
        return (
            clips["products_npq"].transpose(1, 2, 0),
            queries["squares_np"].T,
            clips["squares_np"].T,
        )

    def projected(
        self, kind: str, seed: int, dim: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Projected gradients of queries `(Q, dim)` and clips `(N', dim)`, not normalised; which clips.

        N' is N for the kinds that all clips go through. The last are places among the moving clips, `(N',)`.
        """
        widest = max(self.study.setting.dims) if kind in NESTED else dim
        name = Projected(kind, seed, widest).name
        queries, clips = self._collected("query", name), self._collected("clip", name)
        places = np.searchsorted(self.study.places("clip"), clips["place"])
        return queries["features"][:, :dim], clips["features"][:, :dim], places

    def at(self, timestep: float, noise_seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Fastfood's widest features at another timestep and noise: of queries, and of the first clips."""
        roles: tuple[Role, Role] = ("query", "clip")
        queries, clips = (self._features_at(role, timestep, noise_seed) for role in roles)
        return queries, clips

    def _features_at(self, role: Role, timestep: float, noise_seed: int) -> np.ndarray:
        first = self.first if role == "clip" else len(self.study.moving[role])
        file = self._file(role, first, f"at-{timestep:g}-{noise_seed}")
        if not file.is_file():
            row = {place: i for i, place in enumerate(self.study.places(role)[:first].tolist())}
            widest = max(self.study.setting.dims)
            projection = self._projection(Projected("fastfood", 0, widest).name)
            features = np.empty((first, widest), np.float32)
            for batch in self._moving(role):
                if some := [i for i in batch if i in row]:
                    gradients = self._whole(role, some, timestep, noise_seed)
                    for index, gradient in zip(some, gradients, strict=True):
                        features[row[index]] = _project(projection, gradient)
            _save(file, {"features": features})
            print(f"timestep {timestep:g}, {role}", flush=True)
        found: np.ndarray = np.load(file)["features"]
        return found

    @cached_property
    def first(self) -> int:
        """How many of the moving clips are among the first that timesteps are averaged on."""
        return int((self.study.places("clip") < self.study.setting.averaged_clips).sum())

    def compute(self) -> None:
        """What was not yet computed."""
        queries: torch.Tensor | None = None
        roles: tuple[Role, ...] = ("query", "clip")
        for role in roles:
            for number, some in enumerate(self._moving(role)):
                missing = [
                    w for w in self._wanted(role, some) if not self._file(role, number, w).is_file()
                ]
                if not missing:
                    continue
                if queries is None:
                    queries = self._query_gradients()
                gradients = self._whole(role, some)
                for name in missing:
                    arrays = self._arrays(name, some, gradients, queries)
                    _save(self._file(role, number, name), arrays)
                print(f"whole gradients, {role} batch {number + 1}", flush=True)

    def _wanted(self, role: Role, some: list[int]) -> list[str]:
        """What is computed of a batch: the products, and projections by name."""
        few = role == "clip" and min(some) >= self.study.setting.few_clips
        return [PRODUCTS, *(w.name for w in self._projections if w.kind in NESTED or not few)]

    def _arrays(
        self, name: str, some: list[int], gradients: list[Gradient], queries: torch.Tensor
    ) -> dict[str, np.ndarray]:
        """One thing that is wanted of a batch, with the places of its clips."""
        found: dict[str, list[np.ndarray]] = {}
        for gradient in gradients:
            if name != PRODUCTS:
                found.setdefault("features", []).append(_project(self._projection(name), gradient))
                continue
            parts = [gradient[parameter].flatten() for parameter in self.names]
            of_queries = queries.split(self.sizes.tolist(), dim=1)
            products = [(q @ g).numpy() for q, g in zip(of_queries, parts, strict=True)]
            found.setdefault("products_npq", []).append(np.stack(products))
            squares = [float(g.double().square().sum()) for g in parts]
            found.setdefault("squares_np", []).append(np.array(squares))
        return {"place": np.array(some), **{k: np.stack(values) for k, values in found.items()}}

    @cached_property
    def _projections(self) -> list[Projected]:
        setting = self.study.setting
        return [
            Projected(kind, seed, dim)
            for kind, seeds in setting.projection_seeds.items()
            for seed in range(seeds)
            for dim in ([max(setting.dims)] if kind in NESTED else setting.dims_of(kind))
        ]

    def _projection(self, name: str) -> Projection:
        if name not in self._made:
            shapes = {n: tuple(p.shape) for n, p in self.parameters.items()}
            (wanted,) = (w for w in self._projections if w.name == name)
            self._made[name] = make_projection(wanted.kind, wanted.dim, wanted.seed, shapes)
        return self._made[name]

    @cached_property
    def _made(self) -> dict[str, Projection]:
        return {}

    def _query_gradients(self) -> torch.Tensor:
        """`(Q, D)`, in the order of the moving queries."""
        place = {index: row for row, index in enumerate(self.study.places("query").tolist())}
        whole = torch.empty(len(place), int(self.sizes.sum()))
        for some in self._moving("query"):
            for index, gradient in zip(some, self._whole("query", some), strict=True):
                whole[place[index]] = torch.cat([gradient[n].flatten() for n in self.names])
        return whole

    def _whole(
        self,
        role: Role,
        some: list[int],
        timestep: float | None = None,
        noise_seed: int | None = None,
    ) -> list[Gradient]:
        """The gradient of each by parameter, at the paper's timestep and noise if nothing else is said."""
        timestep = self.timestep if timestep is None else timestep
        noise = self.noise if noise_seed is None else (noise_seed, 0)
        found: list[Gradient] = [{} for _ in some]

        def take(name: str, gradients: torch.Tensor) -> None:
            for one, gradient in zip(found, gradients, strict=True):
                one[name] = gradient.detach().clone()

        self._backward(role, some, True, timestep, noise, take)
        return found

    def _moving(self, role: Role) -> Iterator[list[int]]:
        """Batches of places in the corpus, without what is static."""
        places = set(self.study.places(role).tolist())
        for some in self._batches(role):
            if kept := [i for i in some if i in places]:
                yield kept

    def _collected(self, role: Role, name: str) -> dict[str, np.ndarray]:
        """Of all batches that have it, in the order of what moves."""
        if (role, name) not in self._loaded:
            batches = [
                np.load(self._file(role, number, name))
                for number, some in enumerate(self._moving(role))
                if name in self._wanted(role, some)
            ]
            every = {key: np.concatenate([b[key] for b in batches]) for key in batches[0].files}
            order = np.argsort(every["place"])
            self._loaded[role, name] = {key: values[order] for key, values in every.items()}
        return self._loaded[role, name]

    @cached_property
    def _loaded(self) -> dict[tuple[Role, str], dict[str, np.ndarray]]:
        return {}

    def _file(self, role: Role, number: int, name: str) -> Path:
        return self.folder / f"{role}-{number}-{name}.npz"


def _project(projection: Projection, gradient: Gradient) -> np.ndarray:
    projection.begin()
    for name, values in gradient.items():
        projection.add(name, values)
    return projection.finish()


def _save(file: Path, arrays: dict[str, np.ndarray]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part.npz")
    np.savez(part, **arrays)
    os.replace(part, file)
