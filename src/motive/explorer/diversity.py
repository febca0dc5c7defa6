"""A selection that is best first and still varied: caps by group, and coverage of motions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Cap:
    """At most `most` clips of one group.

    group: of each clip, `(N,)` ints; a negative one is a clip without a group, which no cap holds back.
    """

    group: np.ndarray
    most: int


@dataclass(frozen=True)
class Coverage:
    """At least `least` clips that belong to each motion, as far as there are any.

    belongs: by motion, `(N,)` bool; a clip may belong to several.
    """

    belongs: Sequence[np.ndarray]
    least: int


def choose_diverse(
    count: int,
    candidates: np.ndarray,
    caps: Sequence[Cap] = (),
    coverage: Coverage | None = None,
    taken: np.ndarray | None = None,
) -> np.ndarray:
    """Positions of at most `count` clips, in ascending order.

    First the clips in `taken`, whatever the caps say; then for one motion after another its best
    candidates until it is covered; then the best candidates of all. No candidate is taken that would
    exceed a cap. Fewer are chosen when the caps leave no more.

    candidates: positions that may be chosen, best first. taken: positions that are chosen already.
    """
    chosen: list[int] = [] if taken is None else [int(p) for p in taken]
    inside = set(chosen)
    counts: list[dict[int, int]] = [{} for _ in caps]

    def note(position: int) -> None:
        for cap, seen in zip(caps, counts, strict=True):
            group = int(cap.group[position])
            if group >= 0:
                seen[group] = seen.get(group, 0) + 1

    def fits(position: int) -> bool:
        return all(
            cap.group[position] < 0 or seen.get(int(cap.group[position]), 0) < cap.most
            for cap, seen in zip(caps, counts, strict=True)
        )

    def take(positions: np.ndarray, wanted: int) -> None:
        for position in positions.tolist():
            if wanted <= 0 or len(chosen) >= count:
                return
            if position not in inside and fits(position):
                chosen.append(position)
                inside.add(position)
                note(position)
                wanted -= 1

    for position in chosen:
        note(position)
    if coverage is not None:
        for belongs in coverage.belongs:
            have = int(belongs[np.array(chosen, np.int64)].sum()) if chosen else 0
            take(candidates[belongs[candidates]], coverage.least - have)
    take(candidates, count - len(chosen))
    return np.sort(np.array(chosen, np.int64))
