"""The selection methods, Motive's own and the baselines that it is compared with."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from motive.errors import UserError
from motive.gradients.objective import Objective
from motive.influence.selection import rank_clips
from motive.results import held_back, used_queries
from motive.runs.members import Member
from motive.subsets.listed import listed_subset
from motive.subsets.subset import Subset

if TYPE_CHECKING:
    from motive.pipeline import Run


@dataclass(frozen=True)
class _Choice:
    """What a method chooses from, and how much.

    clips: those that the run ranks, by clip id. eligible: of each, whether it may be selected.
    count: how many to take, fewer only when fewer are eligible.
    """

    run: "Run"
    clips: list[Member]
    eligible: np.ndarray
    count: int
    seed: int
    embedding_model: str | None

    def best(self, order: Iterable[int]) -> tuple[str, ...]:
        """The ids of the first `count` eligible clips of an order, given as indices of `clips`."""
        found = [self.clips[i].clip_id for i in order if self.eligible[i]]
        return tuple(found[: self.count])

    def voted(self, scores_qn: Iterable[np.ndarray], queries: Sequence[Member]) -> tuple[str, ...]:
        """The clips that these scores' votes select, counted exactly as Motive's own.

        scores_qn: of all `clips` with one query after another.
        """
        ranking = rank_clips(
            scores_qn,
            [m.clip_id for m in self.clips],
            fraction=1.0,
            percentile=self.run.config.selection.percentile,
            unwanted=[m.unwanted for m in queries],
        )
        return self.best(ranking.order)


def choose_subset(
    run: "Run",
    name: str,
    *,
    seed: int = 0,
    embedding_model: str | None = None,
    fraction: float | None = None,
) -> Subset:
    """The clips that a method selects, best first.

    name: one of `SUBSETS`, or a file that lists clips (`motive.subsets.listed.listed_subset`).
    seed: of `random`.
    embedding_model: of `embedding`: a folder or a hub id with a V-JEPA 2 model.
    fraction: share of the ranked clips, in (0, 1]; None is the run's own, so that every method takes
        as many as the selection. `all` and a file take what they have.

    What the run holds back for its motion is selected by no method but `all` and a file.

    Raises UserError for a name that is neither a method nor a file, when the run lacks what the method
    needs, or when a method is told what it has no use for.
    """
    if fraction is not None and not 0 < fraction <= 1:
        raise UserError(f"the fraction {fraction:g} is wrong: use a share above 0, at most 1")
    if seed < 0:
        raise UserError(f"the seed {seed} is wrong: use 0 or more")
    if embedding_model is not None and name != "embedding":
        raise UserError(
            f"the subset {name} takes no embedding model: leave it out, or use embedding"
        )
    if name in _METHODS:
        clips = list(run.featured("clip").sorted_by("clip_id"))
        held = held_back(run) if name != "all" else set()
        eligible = np.array([m.clip_id not in held for m in clips])
        share = run.config.selection.fraction if fraction is None else fraction
        count = max(1, round(share * len(clips)))
        choice = _Choice(run, clips, eligible, count, seed, embedding_model)
        chosen, note = _METHODS[name](choice)
        if not chosen:
            raise UserError(
                f"the subset {name} is empty, every clip is held back for its motion: "
                "loosen the selection's bounds"
            )
        return Subset(name, chosen, note)
    if Path(name).is_file():
        if fraction is not None:
            raise UserError(f"{name} says itself which clips to take: leave the fraction out")
        return listed_subset(run, Path(name))
    raise UserError(
        f"there is no subset '{name}': use {', '.join(SUBSETS)}, or a file that lists clips"
    )


def without_mask(run: "Run") -> Objective:
    """The paper's objective with the run's settings and W = 1: Motive without the mask."""
    return replace(run.plan.paper_objective, mask="none")


_Chosen = tuple[tuple[str, ...], str]


def _selection(choice: _Choice) -> _Chosen:
    """Of `selection.csv` the eligible clips from the top; by default those that are selected there."""
    rows, at = choice.run.selection(), {m.clip_id: i for i, m in enumerate(choice.clips)}
    if unknown := [row["file_name"] for row in rows if row["clip_id"] not in at]:
        raise UserError(
            f"selection.csv ranks {unknown[0]}, which has no features any more: "
            f"run motive score and motive select on {choice.run.folder}"
        )
    return choice.best(at[row["clip_id"]] for row in rows), "Motive's own votes, with its mask"


def _no_mask(choice: _Choice) -> _Chosen:
    run, objective = choice.run, without_mask(choice.run)
    run.gradients(objective)
    used = used_queries(run).members
    queries, clips = run.features("query", objective), run.features("clip", objective)
    # The queries and clips of the masked run: what is compared is the mask.
    query_at = {m.feature_key: i for i, m in enumerate(queries.members)}
    clip_at = {m.clip_id: i for i, m in enumerate(clips.members)}
    queries = queries.take([query_at[m.feature_key] for m in used])
    clips = clips.take([clip_at[m.clip_id] for m in choice.clips])
    return choice.voted(queries.influence_of(clips), used), "Motive's votes without the mask"


def _random(choice: _Choice) -> _Chosen:
    # Drawn over all clips, so that a larger fraction of one seed contains the smaller.
    order = np.random.default_rng([choice.seed, len(choice.clips)]).permutation(len(choice.clips))
    return choice.best(order), f"drawn at random with seed {choice.seed}"


def _magnitude(choice: _Choice) -> _Chosen:
    motion = choice.run.motion(columns=["key", "mean_speed"])
    speed = np.array([motion[m.clip_id]["mean_speed"] for m in choice.clips])
    # Clips are in the order of their ids: a stable sort gives ties to the smaller.
    order = np.argsort(-speed, kind="stable")
    return choice.best(order), "the most motion, camera included, in pixels per frame"


def _embedding(choice: _Choice) -> _Chosen:
    from motive.subsets.vjepa import clip_embeddings

    if choice.embedding_model is None:
        raise UserError(
            "the subset embedding needs a V-JEPA 2 model: give --embedding-model with a folder or a "
            "hub id, such as facebook/vjepa2-vitl-fpc64-256, or use motion-statistics, which needs none"
        )
    members = used_queries(choice.run).members
    found = clip_embeddings(choice.run, choice.embedding_model, choice.clips, members)
    there = np.array([m.clip_id in found for m in choice.clips])
    choice = replace(
        choice,
        clips=[m for m in choice.clips if m.clip_id in found],
        eligible=choice.eligible[there],
    )
    clips_nd, queries_qd = (
        np.stack([found[m.clip_id] for m in which]) for which in (choice.clips, members)
    )
    note = f"votes by cosine similarity of {choice.embedding_model}'s embeddings"
    if missing := int((~there).sum()):
        note += f"; {missing} clips have no embedding and were not chosen from"
    return choice.voted((queries_qd @ clips_nd.T).astype(np.float32), members), note


def _motion_statistics(choice: _Choice) -> _Chosen:
    from motive.subsets.motion_statistics import motion_similarity

    members = used_queries(choice.run).members
    scores_qn = motion_similarity(choice.run, choice.clips, members)
    return choice.voted(scores_qn, members), "votes by cosine similarity of motion statistics"


def _all(choice: _Choice) -> _Chosen:
    return tuple(m.clip_id for m in choice.clips), "every clip that the run ranks"


_METHODS: dict[str, Callable[[_Choice], _Chosen]] = {
    "selection": _selection,
    "no-mask": _no_mask,
    "random": _random,
    "magnitude": _magnitude,
    "embedding": _embedding,
    "motion-statistics": _motion_statistics,
    "all": _all,
}

#: The methods by name.
SUBSETS: tuple[str, ...] = tuple(_METHODS)
