"""The corpus on a plane: gradient features brought to two dimensions.

PCA (scikit-learn) is fitted on a sample and applied to every clip, so that memory does not grow with the
corpus. UMAP, where `umap-learn` is installed and asked for, takes the clips that it can.
"""

import os
import threading
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from motive.errors import UserError
from motive.explorer.stored import dataset_of
from motive.influence.stored import stored_features

if TYPE_CHECKING:
    from motive.pipeline import Run

Method = Literal["pca", "umap"]
FITTED = 20_000  # clips that PCA is fitted on
UMAP_CLIPS = 50_000  # more would take UMAP longer than one waits
DRAWN = 40_000  # points that a page draws


@dataclass(frozen=True)
class CorpusMap:
    """Where each ranked clip lies.

    points_n2: float32, NaN for a clip without a feature or with a zero one.
    note: how it was made, for people.
    """

    points_n2: np.ndarray
    note: str


class Maps:
    """Maps of a run, each made once and kept in `folder`."""

    def __init__(self, run: "Run", clip_ids: pa.Array, folder: Path) -> None:
        self._run, self._clip_ids, self._folder = run, clip_ids, folder
        self._made: dict[str, CorpusMap] = {}
        self._lock = threading.Lock()

    @staticmethod
    def methods() -> list[str]:
        """What is installed."""
        packages = {"pca": "sklearn", "umap": "umap"}
        return [name for name, package in packages.items() if find_spec(package)]

    def of(self, method: Method) -> CorpusMap:
        """The map by a method.

        Raises UserError when the method is not installed, or there are no features.
        """
        if method not in self.methods():
            extra = {"pca": "explore", "umap": "umap"}[method]
            raise UserError(
                f"the map by {method.upper()} needs a package that is not installed: "
                f"pip install 'motive-attribution[{extra}]'"
            )
        with self._lock:
            if method not in self._made:
                self._made[method] = self._make(method)
            return self._made[method]

    def _make(self, method: Method) -> CorpusMap:
        run = self._run
        table = run.store.table(run.objective.feature_table, pa.schema([]))
        if not table.exists():
            raise UserError(f"{run.path} has no gradient features: run motive gradients on it")
        version = dataset_of(table.path).version
        kept = self._folder / f"map-{method}-{run.objective.id}-{version}-{len(self._clip_ids)}.npz"
        if kept.is_file():
            with np.load(kept, allow_pickle=False) as found:
                ids = pa.array(found["ids"].tolist(), pa.string())
                if ids.equals(self._sample_ids()):
                    return CorpusMap(found["points"], str(found["note"]))
        made = self._fit(method)
        self._folder.mkdir(parents=True, exist_ok=True)
        part = self._folder / f".{kept.name}.{os.getpid()}.part"
        try:
            with part.open("wb") as file:
                ids = np.array(self._sample_ids().to_pylist())
                np.savez(file, points=made.points_n2, note=made.note, ids=ids)
            os.replace(part, kept)
        finally:
            part.unlink(missing_ok=True)
        return made

    def _sample_ids(self) -> pa.Array:
        """A few of the clips, to tell whether a kept map is of the same ranking."""
        step = max(1, len(self._clip_ids) // 64)
        return self._clip_ids.take(pa.array(np.arange(0, len(self._clip_ids), step)))

    def _fit(self, method: Method) -> CorpusMap:
        if method == "umap":
            return self._fit_umap()
        from sklearn.decomposition import PCA

        count = len(self._clip_ids)
        sample = self._sample(FITTED)
        if len(sample) < 3:
            raise UserError("fewer than three clips have a gradient: there is no map to draw")
        pca = PCA(2, svd_solver="randomized", random_state=0).fit(sample)
        points = np.full((count, 2), np.nan, np.float32)
        for place, batch in self._features():
            moving = batch.any(axis=1)
            points[place[moving]] = pca.transform(batch[moving]).astype(np.float32)
        share = " and ".join(f"{100 * s:.0f}%" for s in pca.explained_variance_ratio_)
        fitted = "" if len(sample) < FITTED else f", fitted on {len(sample):,} clips"
        return CorpusMap(points, f"PCA of the gradient features{fitted}: the axes hold {share}")

    def _fit_umap(self) -> CorpusMap:
        import umap  # type: ignore[import-not-found]

        count = len(self._clip_ids)
        if count > UMAP_CLIPS:
            raise UserError(
                f"UMAP takes up to {UMAP_CLIPS:,} clips, the run has {count:,}: use PCA"
            )
        pairs = [(place[m], batch[m]) for place, batch in self._features() for m in [batch.any(1)]]
        places = np.concatenate([place for place, _ in pairs])
        features = np.concatenate([batch for _, batch in pairs])
        points = np.full((count, 2), np.nan, np.float32)
        points[places] = umap.UMAP(metric="cosine", random_state=0).fit_transform(features)
        return CorpusMap(points, "UMAP of the gradient features (cosine)")

    def _features(self):  # type: ignore[no-untyped-def]
        """Positions and features of the ranked clips, a batch at a time."""
        run = self._run
        table = run.store.table(run.objective.feature_table, pa.schema([]))
        for keys, batch in stored_features(table, run.objective.id, run.objective.dim):
            ids = pc.list_element(pc.split_pattern(keys, ":"), 0)
            place = pc.index_in(ids, value_set=self._clip_ids)
            have = pc.is_valid(place).to_numpy(zero_copy_only=False)
            if have.any():
                yield place.drop_null().to_numpy(), batch[have].astype(np.float32)

    def _sample(self, most: int) -> np.ndarray:
        run = self._run
        table = run.store.table(run.objective.feature_table, pa.schema([]))
        dataset = dataset_of(table.path)
        rows = dataset.count_rows()
        chosen = np.arange(rows)
        if rows > most:
            chosen = np.sort(np.random.default_rng(0).choice(rows, most, replace=False))
        found = dataset.take(chosen.tolist(), columns=["key", "feature", "made_by"])
        found = found.filter(pc.equal(found["made_by"], run.objective.id))
        ids = pc.list_element(pc.split_pattern(found["key"], ":"), 0)
        found = found.filter(pc.is_in(ids, value_set=self._clip_ids))  # the queries are no clips
        features = np.stack(found["feature"].to_numpy()) if len(found) else np.zeros((0, 2))
        return features[features.any(axis=1)].astype(np.float32)


def inside(points_n2: np.ndarray, polygon_m2: np.ndarray) -> np.ndarray:
    """Which points lie inside a closed polygon by the even-odd rule, `(N,)` bool; NaN never does."""
    x, y = points_n2[:, 0], points_n2[:, 1]
    found = np.zeros(len(points_n2), bool)
    ahead = np.roll(polygon_m2, -1, axis=0)
    for (x1, y1), (x2, y2) in zip(polygon_m2, ahead, strict=True):
        crosses = (y1 > y) != (y2 > y)
        if y1 != y2:
            found ^= crosses & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
    return found


def drawn(count: int) -> np.ndarray:
    """Positions of the points that a page draws: all, or the same `DRAWN` of them each time."""
    if count <= DRAWN:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, DRAWN, replace=False))


def has_features(run: "Run") -> bool:
    """Whether the features that a run's scores were made of are still there; nothing is read."""
    return run.store.table(run.objective.feature_table, pa.schema([])).exists()
