"""Each selection method: how many clips, which, and what it refuses."""

import json
from dataclasses import replace

import numpy as np
import pytest

from motive import Run, UserError
from motive.results import write_selection
from motive.runs import members as membership
from motive.runs.config import make_config
from motive.runs.members import Members
from motive.subsets import SUBSETS, choose_subset, without_mask

WEIGHTLESS = tuple(name for name in SUBSETS if name != "embedding")


@pytest.mark.parametrize("name", WEIGHTLESS)
def test_as_many_as_the_selection_each_once_and_the_same_again(run: Run, name: str) -> None:
    subset = choose_subset(run, name, seed=1)
    selected = [row for row in run.selection() if row["selected"] == "true"]
    ranked = {row["clip_id"] for row in run.selection()}
    assert subset.name == name
    assert len(set(subset.clip_ids)) == len(subset.clip_ids)
    assert set(subset.clip_ids) <= ranked
    assert len(subset.clip_ids) == (len(ranked) if name == "all" else len(selected) == 4 and 4)
    assert choose_subset(Run.open(run.path), name, seed=1) == subset


def test_selection_is_what_selection_csv_says(run: Run) -> None:
    rows = run.selection()
    chosen = [row["clip_id"] for row in rows if row["selected"] == "true"]
    assert choose_subset(run, "selection").clip_ids == tuple(chosen)
    half = choose_subset(run, "selection", fraction=0.5)
    assert half.clip_ids == tuple(row["clip_id"] for row in rows[:7])


def test_magnitude_is_the_order_of_motion_csv(run: Run) -> None:
    speed = {
        key: row["mean_speed"] for key, row in run.motion(columns=["key", "mean_speed"]).items()
    }
    chosen = choose_subset(run, "magnitude", fraction=0.5).clip_ids
    speeds = [speed[clip_id] for clip_id in chosen]
    assert speeds == sorted(speeds, reverse=True)
    others = {row["clip_id"] for row in run.selection()} - set(chosen)
    assert min(speeds) >= max(speed[clip_id] for clip_id in others)


def test_random_is_of_its_seed_and_grows_with_the_fraction(run: Run) -> None:
    found = {seed: choose_subset(run, "random", seed=seed).clip_ids for seed in range(6)}
    assert len(set(found.values())) > 1
    more = choose_subset(run, "random", seed=2, fraction=0.5).clip_ids
    assert more[:4] == found[2]


def test_without_the_mask_it_is_the_plain_features_votes(run: Run) -> None:
    chosen = choose_subset(run, "no-mask").clip_ids
    plain = without_mask(run)
    assert plain == replace(run.objective, mask="none")
    queries, clips = run.features("query", plain), run.features("clip", plain)
    scores = queries.features_nd.astype(float) @ clips.features_nd.T.astype(float)
    votes = (scores > np.percentile(scores, 90, axis=1)[:, None]).sum(0)
    best = np.lexsort((-scores.mean(0), -votes))[:4]
    assert chosen == tuple(clips.members[i].clip_id for i in best)
    assert chosen != choose_subset(run, "selection").clip_ids


def test_what_is_held_back_is_in_no_subset_but_all(run: Run) -> None:
    speeds = sorted(row["mean_speed"] for row in run.motion(columns=["key", "mean_speed"]).values())
    bound = float(np.median(speeds))
    config = run.config.model_dump(mode="json")
    config["selection"]["min_speed"] = bound
    other = Run.create_from(make_config(config), run.path)
    write_selection(other)
    motion = other.motion(columns=["key", "mean_speed"])
    for name in WEIGHTLESS:
        slow = [c for c in choose_subset(other, name).clip_ids if motion[c]["mean_speed"] < bound]
        assert bool(slow) == (name == "all"), name


def test_an_unwanted_query_counts_against(run: Run) -> None:
    members = run.members
    turned = [
        replace(m, extra=json.dumps({**json.loads(m.extra), "polarity": "unwanted"}))
        if m.role == "query"
        else m
        for m in members
    ]
    for_all = {
        name: set(choose_subset(run, name).clip_ids) for name in ("no-mask", "motion-statistics")
    }
    membership.save(run.store.members, Members.of(turned))
    other = Run.open(run.path)
    for name, before in for_all.items():
        assert not before & set(choose_subset(other, name).clip_ids), name


def test_refusals(run: Run) -> None:
    for arguments, words in (
        (("best",), "there is no subset 'best': use selection, no-mask,"),
        (("random", 0.0), "the fraction 0 is wrong"),
        (("random", None, "some/model"), "takes no embedding model"),
        (("embedding",), "give --embedding-model"),
    ):
        name, fraction, model = (*arguments, None, None)[:3]
        with pytest.raises(UserError, match=words):
            choose_subset(run, str(name), fraction=fraction, embedding_model=model)
    (run.path / "selection.csv").unlink()
    with pytest.raises(UserError, match="motive select"):
        choose_subset(run, "selection")


def test_a_negative_seed_is_refused(run: Run) -> None:
    with pytest.raises(UserError, match="the seed -1 is wrong"):
        choose_subset(run, "random", seed=-1)
