"""Diversity, near-duplicates, groups and the map: the mathematics behind the page."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motive.explorer.choice import Diversity
from motive.explorer.corpus_map import inside
from motive.explorer.diversity import Cap, Coverage, choose_diverse
from motive.explorer.groups import BY_NAME, group_queries, overlap
from motive.explorer.neighbours import group_alike
from motive.explorer.session import Session


@settings(deadline=None)
@given(
    st.lists(st.integers(-1, 3), min_size=1, max_size=40),
    st.integers(1, 3),
    st.integers(1, 20),
    st.integers(0, 5),
)
def test_caps_hold_and_the_best_come_first(
    groups: list[int], most: int, count: int, least: int
) -> None:
    group = np.array(groups)
    motion = np.arange(len(groups)) % 3 == 0
    chosen = choose_diverse(
        count, np.arange(len(groups)), [Cap(group, most)], Coverage([motion], least)
    )
    assert len(set(chosen.tolist())) == len(chosen) <= count
    for name in set(groups) - {-1}:
        assert (group[chosen] == name).sum() <= most
    left = [p for p in range(len(groups)) if p not in chosen]
    for position in left:
        # Whatever stayed out would break a cap, or there was no place, or it is not needed.
        capped = groups[position] >= 0 and (group[chosen] == groups[position]).sum() == most
        assert capped or len(chosen) == count
    plain = choose_diverse(count, np.arange(len(groups)))
    assert plain.tolist() == list(range(min(count, len(groups))))


def test_coverage_comes_before_rank_and_taken_before_both() -> None:
    belongs = np.array([False, False, False, True, True])
    chosen = choose_diverse(2, np.arange(5), [], Coverage([belongs], 1))
    assert chosen.tolist() == [0, 3]
    assert choose_diverse(2, np.arange(4), [], Coverage([belongs], 1), np.array([4])).tolist() == [
        0,
        4,
    ]


@settings(deadline=None)
@given(st.integers(0, 30), st.integers(0, 2**32 - 1))
def test_near_duplicates_are_the_connected_parts(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9
    vectors[::7] = 0
    found = group_alike(vectors, 0.9)
    parent = list(range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    for i in range(count):
        for j in range(i):
            if vectors[i] @ vectors[j] >= 0.9:
                parent[root(i)] = root(j)
    roots = [root(i) for i in range(count)]
    for i in range(count):
        assert (found[i] == -1) == (roots.count(roots[i]) == 1)
        for j in range(i):
            if found[i] >= 0:
                assert (found[i] == found[j]) == (roots[i] == roots[j])


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-2, 2), st.floats(-2, 2)), min_size=1, max_size=20))
def test_inside_a_polygon_is_inside_its_triangles(points: list[tuple[float, float]]) -> None:
    square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], float)
    array = np.array(points)
    clear = (np.abs(np.abs(array) - 1) > 1e-6).all(axis=1)
    expected = (np.abs(array) < 1).all(axis=1)
    assert (inside(array, square)[clear] == expected[clear]).all()
    assert not inside(np.array([[np.nan, 0.0]]), square).any()


@settings(deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=11, max_size=11), min_size=1, max_size=4))
def test_overlap_is_the_jaccard_index(rows: list[list[bool]]) -> None:
    masks = [np.packbits(np.array(row)) for row in rows]
    found = overlap(masks, 11)
    sets = [{i for i, here in enumerate(row) if here} for row in rows]
    for i, first in enumerate(sets):
        for j, second in enumerate(sets):
            either = first | second
            expected = len(first & second) / len(either) if either else 0
            assert found[i][j] == pytest.approx(expected, abs=1e-4)


def test_similar_clips_are_those_with_the_nearest_gradients(session: Session) -> None:
    features = session.run.features("clip")
    cosines = features.features_nd @ features.features_nd.T
    for i, member in enumerate(features.members):
        if features.static[i]:
            continue
        found = session.neighbours.similar(member.feature_key, 4)
        assert found.exact
        assert member.clip_id not in found.clip_ids
        best = np.sort(np.delete(cosines[i], i))[::-1][:4]
        assert found.similarity == pytest.approx(best.tolist(), abs=1e-4)


def test_the_gif_is_a_near_duplicate_of_its_source(session: Session) -> None:
    names = session.table.texts["file_name"].to_pylist()
    groups = session.neighbours.groups(0.5)
    assert groups[names.index("clips/moving.gif")] == groups[names.index("clips/000000.mp4")] >= 0


def test_queries_are_grouped_by_motion_or_by_name(session: Session) -> None:
    grouping = group_queries(session.queries)
    assert grouping.label == "motion"
    assert {name: len(ids) for name, ids in grouping.groups.items()} == {"bounce": 2, "roll": 2}
    assert group_queries(session.queries, BY_NAME).label == BY_NAME


def test_a_cap_by_source_changes_the_choice_and_undo_brings_it_back(session: Session) -> None:
    before = session.choice.chosen.copy()
    wish = Diversity(per_source=1, source_by="motion")
    effect = session.effect(wish)
    session.choice.save_diversity(wish)
    session.choice.refresh()
    groups = session.source_groups("motion")[session.choice.chosen]
    assert len(set(groups.tolist())) == len(groups) == effect["after"]["count"]
    session.curation.undo()
    session.choice.refresh()
    assert (session.choice.chosen == before).all()


def test_excluded_places_go_to_the_next_best(session: Session) -> None:
    first = session.table.clip_ids[0].as_py()
    session.choice.save_diversity(Diversity(refill=True))
    session.curation.decide([first], "exclude")
    session.choice.refresh()
    assert np.flatnonzero(session.choice.chosen).tolist() == [1, 2, 3]


def test_the_map_puts_every_moving_clip_somewhere(session: Session) -> None:
    features = session.run.features("clip")
    made = session.maps.of("pca")
    assert np.isfinite(made.points_n2[:, 0]).sum() == (~features.static).sum()
    at = {m.clip_id: i for i, m in enumerate(features.members)}
    ids = session.table.clip_ids.to_pylist()
    centred = features.features_nd[~features.static]
    centred = centred - centred.mean(axis=0)
    _, singular, _ = np.linalg.svd(centred, full_matrices=False)
    moving = [p for p, i in enumerate(ids) if not features.static[at[i]]]
    spread = made.points_n2[moving].astype(float).var(axis=0) * len(moving)
    assert spread == pytest.approx((singular[:2] ** 2).tolist(), rel=1e-2)
    again = Session(session.run)
    assert again.maps.of("pca").points_n2.tobytes() == made.points_n2.tobytes()
    again.close()
