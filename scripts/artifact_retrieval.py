"""Are the planted clips at the top? Area under the ROC curve and precision, of Motive and the baselines."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from motive import Run
from motive.influence.estimators import centred_cosine
from motive.subsets import without_mask
from motive.subsets.motion_statistics import motion_similarity
from motive.zoo.artifacts import ARTIFACTS, HOSTS

RANDOM_DRAWS = 200
Measure = Callable[[np.ndarray], float]


@dataclass(frozen=True)
class _Task:
    """Which clips are to be found among which. found_n, among_n: bool; a clip is in one, or in neither."""

    found_n: np.ndarray
    among_n: np.ndarray

    def auc(self, score_n: np.ndarray) -> float:
        """The chance that a clip to be found scores above another; a tie is half."""
        wanted, others = score_n[self.found_n], score_n[self.among_n]
        greater = (wanted[:, None] > others).mean()
        return float(greater + 0.5 * (wanted[:, None] == others).mean())

    def precision(self, score_n: np.ndarray) -> float:
        """Share of the clips to be found in as many of the best; ties at the border count by share."""
        count, both = int(self.found_n.sum()), self.found_n | self.among_n
        border = np.sort(score_n[both])[-count]
        above, tied = both & (score_n > border), both & (score_n == border)
        places = count - above.sum()
        hits = (above & self.found_n).sum() + places * (tied & self.found_n).sum() / tied.sum()
        return float(hits / count)


def judge_retrieval(
    run: Run,
    planted: Mapping[str, tuple[str, str]],
    queries: Mapping[str, tuple[str, str]],
    *,
    resamples: int,
) -> dict[str, Any]:
    """By origin of the queries, method and kind: `auc` and `precision` with 95% intervals over queries.

    planted: artifact ("" for a good clip) and motion of the clips, by file name.
    queries: origin and artifact, by file name.

    `all` has every query's mean score against all planted clips, as `motive diagnose` ranks; a kind has that
    kind's queries and its planted clips against the good ones; `KIND, same motion` has the good ones of the
    same motion alone.
    """
    clips = sorted(run.featured("clip"), key=lambda member: member.clip_id)
    labels = [planted[m.file_name] for m in clips]
    members, scores = scores_by_method(run)
    found: dict[str, Any] = {}
    for origin in dict.fromkeys(o for o, _ in queries.values()):
        rows = {
            kind: [
                i
                for i, m in enumerate(members)
                if queries[m.file_name][0] == origin and kind in ("all", queries[m.file_name][1])
            ]
            for kind in ("all", *ARTIFACTS)
        }
        found[origin] = {"queries": {kind: len(which) for kind, which in rows.items()}}
        for method, scores_qn in scores.items():
            found[origin][method] = {
                name: _judged(task, scores_qn[rows[kind]], resamples)
                for name, (kind, task) in _tasks(labels).items()
                if rows[kind]
            }
    baselines = {"random": None, "magnitude": _speed(run, clips)}
    for method, score_n in baselines.items():
        found[method] = {
            name: _random(task, len(clips)) if score_n is None else _exact(task, score_n)
            for name, (_, task) in _tasks(labels).items()
        }
    return found


def scores_by_method(run: Run) -> tuple[list[Any], dict[str, np.ndarray]]:
    """The queries with motion, and each method's scores `(Q, N)`, clips in the order of their ids."""
    clips, queries = run.features("clip"), run.features("query")
    clips = clips.take(np.argsort([m.clip_id for m in clips.members]))
    queries = queries.take(np.flatnonzero(~queries.static))
    objective = without_mask(run)
    run.gradients(objective)
    plain = {
        role: {m.clip_id: v for m, v in zip(f.members, f.features_nd, strict=True)}
        for role in ("clip", "query")
        for f in [run.features(role, objective)]
    }
    plain_clips = np.stack([plain["clip"][m.clip_id] for m in clips.members])
    plain_queries = np.stack([plain["query"][m.clip_id] for m in queries.members])
    masked_q, masked_n = queries.features_nd, clips.features_nd
    return queries.members, {
        "motive": queries.influence_of(clips),
        "no-mask": (plain_queries @ plain_clips.T).astype(np.float32),
        "motive, centred": centred_cosine(masked_q.astype(float), masked_n.astype(float)),
        "no-mask, centred": centred_cosine(plain_queries.astype(float), plain_clips.astype(float)),
        "motion-statistics": motion_similarity(run, clips.members, queries.members),
    }


def _tasks(labels: list[tuple[str, str]]) -> dict[str, tuple[str, _Task]]:
    """Kind of the queries and task, by name."""
    artifacts, motions = (np.array(column) for column in zip(*labels, strict=True))
    good = artifacts == ""
    tasks = {"all": ("all", _Task(~good, good))}
    for kind in ARTIFACTS:
        tasks[kind] = (kind, _Task(artifacts == kind, good))
    for kind in ARTIFACTS:
        same = good & (motions == HOSTS[kind])
        if same.any():
            tasks[f"{kind}, same motion"] = (kind, _Task(artifacts == kind, same))
    return tasks


def _judged(task: _Task, scores_qn: np.ndarray, resamples: int) -> dict[str, list[float]]:
    """Value and interval: queries drawn again and again with replacement."""
    rng, count = np.random.default_rng(0), len(scores_qn)
    drawn = [scores_qn[rng.integers(count, size=count)].mean(0) for _ in range(resamples)]
    result = {}
    for name, measure in (("auc", task.auc), ("precision", task.precision)):
        result[name] = [measure(scores_qn.mean(0)), *_interval([measure(s) for s in drawn])]
    return result


def _random(task: _Task, clips: int) -> dict[str, list[float]]:
    """Mean and 95% of draws."""
    rng = np.random.default_rng(0)
    drawn = rng.random((RANDOM_DRAWS, clips))
    result = {}
    for name, measure in (("auc", task.auc), ("precision", task.precision)):
        values = [measure(score_n) for score_n in drawn]
        result[name] = [float(np.mean(values)), *_interval(values)]
    return result


def _exact(task: _Task, score_n: np.ndarray) -> dict[str, list[float]]:
    return {"auc": [task.auc(score_n)], "precision": [task.precision(score_n)]}


def _interval(values: list[float]) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _speed(run: Run, clips: list[Any]) -> np.ndarray:
    motion = run.motion(columns=["key", "mean_speed"])
    return np.array([motion[m.clip_id]["mean_speed"] for m in clips])
