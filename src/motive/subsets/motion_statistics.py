"""An embedding of motion without weights: how much moves when and where, from the run's own motion maps.

It stands in for a video network where there is none, under its own name. What the tracker stored are
magnitudes M of the motion on the latent's grid (`motive.motion.masks`), so the embedding is about amount,
time and place, not about direction or look. Four groups of numbers, none of which depends on a clip's
length or size:

- amount: a histogram of log2(1 + M) over all cells and frames, for the objects' own motion and for the
  camera's, as histograms of flow magnitude are used in action recognition (Chaudhry et al., CVPR 2009);
- rhythm: the mean of M in equal parts of the clip, as shares of the whole;
- path: where the centre of the moving mass is in each part, relative to its mean over the clip, in units
  of the frame: a fall goes down, a slide sideways, a bounce up and down;
- spread: the moving mass's standard deviation along both axes in each part: a stretch widens, an
  explosion grows both ways, a spin stays.

Every number is standardised over the run's clips and every group has the same weight. Similarity is the
cosine.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from motive.motion.masks import MotionMaps
from motive.motion.track import maps_of
from motive.runs.members import Member

if TYPE_CHECKING:
    from motive.pipeline import Run

PARTS = 8  # of a clip in time
BIN_EDGES = np.linspace(
    0.0, 6.0, 13
)  # of log2(1 + M): up to 63 pixels, in steps of half a doubling
_STILL = 0.05  # pixels; a part whose mean M is below has no path and no rhythm worth the name


def describe_motion(maps: MotionMaps) -> tuple[np.ndarray, ...]:
    """The four groups of one clip's numbers: amount, rhythm, path and spread, float64."""
    objects, camera = (maps.magnitudes[kind].magnitude_fhw for kind in ("object", "camera"))
    amount = np.concatenate([_histogram(objects), _histogram(camera)])
    parts_phw = _in_parts(objects)
    mass_p = parts_phw.mean((1, 2))
    total = mass_p.sum()
    if total < _STILL * PARTS:
        even = np.full(PARTS, 1 / PARTS)
        return amount, even, np.zeros(2 * PARTS), np.zeros(2 * PARTS)
    path, spread = _path_and_spread(parts_phw)
    return amount, mass_p / total, path, spread


def motion_similarity(run: "Run", clips: list[Member], queries: list[Member]) -> np.ndarray:
    """Cosine `(Q, N)` float32 of the clips' motion with that of each query.

    Raises UserError when a clip was not tracked.
    """
    wanted = {m.clip_id for m in (*clips, *queries)}
    found = {clip_id: groups for clip_id, groups in _described(run) if clip_id in wanted}
    groups = [
        _standardised(
            np.stack([found[m.clip_id][group] for m in clips]),
            np.stack([found[m.clip_id][group] for m in queries]),
        )
        for group in range(4)
    ]
    clips_nd, queries_qd = (np.concatenate([g[i] for g in groups], axis=1) for i in (0, 1))
    return (_unit(queries_qd) @ _unit(clips_nd).T).astype(np.float32)


def _described(run: "Run") -> Iterator[tuple[str, tuple[np.ndarray, ...]]]:
    stage = run.plan.track_stage
    for row in run.store.results(stage).rows(stage.fingerprint()):
        yield row["key"], describe_motion(maps_of(row))


def _histogram(magnitude_fhw: np.ndarray) -> np.ndarray:
    """Shares of the cells by log2(1 + M), each counted to its two nearest bins by distance."""
    moving = magnitude_fhw[1:] if len(magnitude_fhw) > 1 else magnitude_fhw
    place = np.interp(np.log2(1 + moving.ravel()), BIN_EDGES, np.arange(len(BIN_EDGES)))
    below = np.minimum(place.astype(int), len(BIN_EDGES) - 2)
    share = place - below
    counts = np.bincount(below, 1 - share, len(BIN_EDGES))
    counts += np.bincount(below + 1, share, len(BIN_EDGES))
    return np.sqrt(counts / len(place))  # the root: Hellinger's distance between histograms


def _in_parts(magnitude_fhw: np.ndarray) -> np.ndarray:
    """M averaged over PARTS equal parts of the clip, frames that lie in two shared between them.

    The first frame is left out: nothing has moved in it by any tracker's convention.
    """
    moving = magnitude_fhw[1:] if len(magnitude_fhw) > 1 else magnitude_fhw
    # The integral over time, read at the parts' borders.
    integral = np.concatenate([np.zeros_like(moving[:1]), np.cumsum(moving, 0, dtype=np.float64)])
    borders = np.linspace(0, len(moving), PARTS + 1)
    below = np.minimum(borders.astype(int), len(moving) - 1)
    share = (borders - below)[:, None, None]
    at_borders = (1 - share) * integral[below] + share * integral[below + 1]
    return np.diff(at_borders, axis=0) * (PARTS / len(moving))


def _path_and_spread(parts_phw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres of the moving mass relative to their mean, and its deviations, x before y, 0..1 of the frame.

    A part in which nothing moves has the clip's mean centre and spread.
    """
    height, width = parts_phw.shape[1:]
    y, x = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
    mass = parts_phw.sum((1, 2))
    safe = np.where(mass > 0, mass, 1.0)
    marginals = parts_phw.sum(1) / safe[:, None], parts_phw.sum(2) / safe[:, None]
    weight = mass / mass.sum()
    paths, spreads = [], []
    for marginal, place in zip(marginals, (x, y), strict=True):
        centre = marginal @ place
        spread = np.sqrt(np.maximum(marginal @ place**2 - centre**2, 0.0))
        moving = parts_phw.mean((1, 2)) >= _STILL
        mean_centre, mean_spread = weight @ centre, weight @ spread
        paths.append(np.where(moving, centre - mean_centre, 0.0))
        spreads.append(np.where(moving, spread, mean_spread))
    return np.concatenate(paths), np.concatenate(spreads)


def _standardised(clips_nd: np.ndarray, queries_qd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both with the clips' mean and deviation taken away, in units in which the group weighs 1."""
    mean, deviation = clips_nd.mean(0), clips_nd.std(0)
    # A number that is the same for every clip says nothing.
    scale = np.where(deviation > 1e-9, deviation, np.inf) * np.sqrt(clips_nd.shape[1])
    return (clips_nd - mean) / scale, (queries_qd - mean) / scale


def _unit(vectors_nd: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors_nd, axis=1, keepdims=True)
    return vectors_nd / np.where(lengths > 0, lengths, 1.0)
