"""Who judges which pair, in which order, and what stands left: random, and balanced all the same."""

import random
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

from motive.study.design import Design, Pair

Edge = tuple[Hashable, Hashable]


@dataclass(frozen=True)
class Place:
    """One showing of a pair or a check to one annotator.

    annotator: 0, 1, …
    a_left: whether the first video of the pair is shown on the left.
    position: in the annotator's own order, from 0.
    """

    annotator: int
    item_id: str
    a_left: bool
    position: int


def plan_places(design: Design) -> list[Place]:
    """Every showing of the study.

    Each pair goes to `per_pair` annotators; no two annotators' numbers of pairs differ by more than one,
    and each one's pairs are spread over the pairs of arms. Each pair stands on its first side in half of
    its showings, to within one, and so does each pair of arms for each annotator (`balanced_sides`).
    Checks go to everybody, spread over the session, never first while there are pairs.
    """
    rng = random.Random(f"places {design.rules.seed}")
    shares = _shares(design, rng)
    edges = [
        ((annotator, pair.arms), pair.id)
        for annotator, share in enumerate(shares)
        for pair in share
    ]
    sides = dict(zip(edges, balanced_sides(edges, rng), strict=True))
    places = []
    for annotator, share in enumerate(shares):
        shown = [(pair.id, sides[(annotator, pair.arms), pair.id]) for pair in share]
        rng.shuffle(shown)
        for position, (item_id, a_left) in enumerate(plan_checks(design, shown, rng)):
            places.append(Place(annotator, item_id, a_left, position))
    return places


def _shares(design: Design, rng: random.Random) -> list[list[Pair]]:
    """The pairs of each annotator: consecutive places on a circle on which all pairs stand once.

    A share is never longer than the circle as long as `per_pair` is at most the number of annotators,
    so nobody has a pair twice, and going round `per_pair` times serves each pair that often.
    """
    circle = _circle(design, rng)
    total, count = len(circle) * design.rules.per_pair, len(design.annotators)
    bounds = [total * k // count for k in range(count + 1)]
    shares = [
        [circle[i % len(circle)] for i in range(bounds[k], bounds[k + 1])] for k in range(count)
    ]
    rng.shuffle(shares)
    return shares


def _circle(design: Design, rng: random.Random) -> list[Pair]:
    """All pairs in random order, the pairs of arms taking turns."""
    groups: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for pair in design.pairs:
        groups[pair.arms].append(pair)
    for group in groups.values():
        rng.shuffle(group)
    turns = chain.from_iterable(zip_longest(*groups.values()))
    return [pair for pair in turns if pair is not None]


def plan_checks(
    design: Design, shown: list[tuple[str, bool]], rng: random.Random
) -> list[tuple[str, bool]]:
    """A session with the checks in it: each at a random place in its own stretch, sides balanced.

    shown: items with whether their first video is on the left, in the session's order.
    """
    checks = [check.id for check in design.checks]
    rng.shuffle(checks)
    sides = [i % 2 == 0 for i in range(len(checks))]
    flip = rng.random() < 0.5
    rng.shuffle(sides)
    merged = list(shown)
    for i in reversed(range(len(checks))):
        low, high = (len(shown) * k // len(checks) for k in (i, i + 1))
        at = min(len(shown), rng.randint(low + 1, max(low + 1, high)))
        merged.insert(at, (checks[i], sides[i] ^ flip))
    return merged


def balanced_sides(edges: Sequence[Edge], rng: random.Random) -> list[bool]:
    """True or False for each edge of a bipartite graph: at every vertex as often, to within one.

    Vertices of odd degree are joined to one more vertex on the other shore, which makes all degrees even.
    A closed walk over all edges of a part then has even length, because the graph is bipartite, and
    alternating along it leaves each vertex as often by one kind as by the other; taking the added edges
    away again costs each vertex one at most. This is the equitable colouring of bipartite graphs
    (de Werra 1971) with two colours.

    edges: distinct pairs of a vertex on the left shore and one on the right.
    """
    ends = [(("left", left), ("right", right)) for left, right in edges]
    degree: dict[Hashable, int] = defaultdict(int)
    for left, right in ends:
        degree[left] += 1
        degree[right] += 1
    dummies: dict[str, tuple[str, Hashable]] = {s: (s, _Added()) for s in ("left", "right")}
    for vertex in [v for v, d in degree.items() if d % 2]:
        shore = vertex[0]  # type: ignore[index]
        pair = (vertex, dummies["right"]) if shore == "left" else (dummies["left"], vertex)
        ends.append(pair)  # type: ignore[arg-type]
        degree[dummies["right" if shore == "left" else "left"]] += 1
    if degree[dummies["left"]] % 2:
        ends.append((dummies["left"], dummies["right"]))  # both are odd, or neither
    sides = [False] * len(ends)
    for walk in _closed_walks(ends, rng):
        side = rng.random() < 0.5
        for edge in walk:
            sides[edge] = side
            side = not side
    return sides[: len(edges)]


class _Added:
    """A vertex that equals no other."""


def _closed_walks(ends: Sequence[Edge], rng: random.Random) -> list[list[int]]:
    """Indices of edges along one closed walk for each connected part (Hierholzer), in random turns."""
    at: dict[Hashable, list[int]] = defaultdict(list)
    for index, vertices in enumerate(ends):
        for vertex in vertices:
            at[vertex].append(index)
    for leaving in at.values():
        rng.shuffle(leaving)
    used = [False] * len(ends)
    walks = []
    for start in at:
        walk: list[int] = []
        stack: list[tuple[Hashable, int | None]] = [(start, None)]
        while stack:
            vertex, entered_by = stack[-1]
            while at[vertex] and used[at[vertex][-1]]:
                at[vertex].pop()
            if at[vertex]:
                edge = at[vertex].pop()
                used[edge] = True
                left, right = ends[edge]
                stack.append((right if vertex == left else left, edge))
            else:
                stack.pop()
                if entered_by is not None:
                    walk.append(entered_by)
        if walk:
            walks.append(walk)
    return walks
