"""Bad clips with a known fault, to be planted in a corpus: what a diagnosis should find.

A fault is made of a good scene. Where the object is wrong the scene is edited before it is rendered, so that
the true motion beside the clip is that of the faulty clip; the flicker is a gain on the rendered frames.

Borders in time are on `GROUP`s of frames after the first, as the VAEs of the Wan family take them
together: a jump within one is blurred by a small VAE before any denoiser has seen it.
"""

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from motive.runs.csv_text import write_csv
from motive.runs.progress import Progress
from motive.zoo.captions import caption_of
from motive.zoo.motions import FLOOR, SIZE, Piece
from motive.zoo.render import COLUMNS, FPS, write_mp4, write_truth
from motive.zoo.scene import Scene, draw_scene, render_frames, true_motion

GROUP = 4  # frames in one latent frame, but for the first

Rng = np.random.Generator


@dataclass(frozen=True)
class FaultyClip:
    """scene: what is rendered. gain_f: what every frame's light is multiplied by."""

    scene: Scene
    gain_f: np.ndarray

    def frames(self) -> np.ndarray:
        """`(F, 64, 64, 3)` uint8 RGB."""
        lit = render_frames(self.scene) * self.gain_f[:, None, None, None]
        return np.round(np.clip(lit, 0, 255)).astype(np.uint8)


def _moved(scene: Scene, shift_f2: np.ndarray) -> Scene:
    """The scene with its object somewhere else in every frame, in scene pixels, x before y."""
    pieces = []
    for piece in scene.pieces:
        moved = piece.affine_f23.copy()
        moved[:, :, 2] += shift_f2
        pieces.append(Piece(moved, piece.cell))
    return replace(scene, pieces=pieces)


def _middle_f2(scene: Scene) -> np.ndarray:
    return np.mean([piece.affine_f23[:, :, 2] for piece in scene.pieces], axis=0)


def _border(rng: Rng, frames: int) -> int:
    """The first frame of a group in the middle of the clip."""
    groups = (frames - 1) // GROUP
    return 1 + GROUP * int(rng.integers(max(1, groups // 2 - 1), groups // 2 + 1))


def _teleport(scene: Scene, rng: Rng) -> FaultyClip:
    """From one frame to the next the object is on the other side, and goes on from there."""
    at, middle_f2 = _border(rng, scene.frames), _middle_f2(scene)
    room = SIZE - 2 * scene.look.radius
    here, shift_f2 = middle_f2[at], np.zeros((scene.frames, 2))
    target = scene.look.radius + room * rng.uniform(0, 1, (64, 2))
    target = target[np.argmax(np.linalg.norm(target - here, axis=1) > 0.6 * room)]
    shift_f2[at:] = target - here
    # What it does after the leap stays in the frame, or it would be a disappearance.
    inside = np.clip(middle_f2[at:] + shift_f2[at:], scene.look.radius, SIZE - scene.look.radius)
    shift_f2[at:] = inside - middle_f2[at:]
    return FaultyClip(_moved(scene, shift_f2), np.ones(scene.frames))


def _flicker(scene: Scene, rng: Rng) -> FaultyClip:
    """The light jumps up and down between groups of frames."""
    group_f = (np.arange(scene.frames) + GROUP - 1) // GROUP
    dark, bright = rng.uniform(0.45, 0.6), rng.uniform(1.05, 1.15)
    return FaultyClip(scene, np.where((group_f + rng.integers(2)) % 2 == 0, bright, dark))


def _reversed_gravity(scene: Scene, rng: Rng) -> FaultyClip:
    """The path is mirrored top to bottom, the object is not: what fell now falls upwards, ever faster."""
    shift_f2 = np.zeros((scene.frames, 2))
    shift_f2[:, 1] = FLOOR - 2 * _middle_f2(scene)[:, 1]
    return FaultyClip(_moved(scene, shift_f2), np.ones(scene.frames))


def _frozen_middle(scene: Scene, rng: Rng) -> FaultyClip:
    """Two groups of frames in the middle are one picture; then the clip goes on where it should be."""
    at, order = 1 + GROUP * ((scene.frames - 1) // GROUP // 2 - 1), np.arange(scene.frames)
    order[at : at + 2 * GROUP] = at
    pieces = [Piece(piece.affine_f23[order], piece.cell) for piece in scene.pieces]
    frozen = replace(scene, pieces=pieces, camera_f23=scene.camera_f23[order])
    return FaultyClip(frozen, np.ones(scene.frames))


_FAULTS: dict[str, Callable[[Scene, Rng], FaultyClip]] = {
    "teleport": _teleport,
    "flicker": _flicker,
    "reversed_gravity": _reversed_gravity,
    "frozen_middle": _frozen_middle,
}

ARTIFACTS = tuple(_FAULTS)
"""The kinds by name."""

HOSTS = {
    "teleport": "slide",
    "flicker": "spin",
    "reversed_gravity": "free_fall",
    "frozen_middle": "swing",
}
"""The motion that clips with each artifact show otherwise: a fall can be reversed, a swing can be seen to
stand still. Captions tell the motion and nothing of the artifact."""


def faulty_clip(
    artifact: str, frames: int, *, seed: int, index: int, kind: str | None = None
) -> FaultyClip:
    """Clip `index` of corpus `seed` with this artifact.

    kind: the motion, by default the artifact's of `HOSTS`.

    Raises ValueError for fewer than 13 frames: there is no middle of two groups.
    """
    if frames < 1 + 3 * GROUP:
        raise ValueError(f"an artifact takes at least {1 + 3 * GROUP} frames, not {frames}")
    scene = draw_scene(kind or HOSTS[artifact], frames, seed=seed, index=index, camera="none")
    rng = np.random.default_rng([seed, index, 3, ARTIFACTS.index(artifact)])
    return _FAULTS[artifact](scene, rng)


def plant_artifacts(
    corpus: Path, planted: Mapping[int, str], *, seed: int, progress: Progress | None = None
) -> None:
    """Put faulty clips in the places of some good ones of a corpus that `render_corpus` wrote.

    planted: the artifact by the number of the clip. The look stays that of the clip that was there; its
        motion, its caption and its true motion are those of the faulty clip.
    seed: the corpus' own.

    `metadata.csv` gets a column `artifact`, empty for good clips, and is written last: an interrupted
    planting is done again from the start, with the same result.
    """
    table = corpus / "metadata.csv"
    with table.open(newline="", encoding="utf-8") as file:
        rows: list[dict[str, object]] = [{**row, "artifact": ""} for row in csv.DictReader(file)]
    with (progress or Progress(quiet=True)).stage("plant", len(planted)) as advance:
        for index, artifact in planted.items():
            row = rows[index]
            clip = faulty_clip(artifact, int(str(row["frames"])), seed=seed, index=index)
            write_mp4(corpus / str(row["file_name"]), clip.frames(), FPS)
            write_truth(corpus / str(row["truth"]), true_motion(clip.scene))
            row |= {"motion": clip.scene.kind, "camera": clip.scene.camera}
            row |= {"caption": caption_of(clip.scene), "artifact": artifact}
            advance(f"{row['file_name']} {artifact}")
    write_csv(table, (*COLUMNS, "artifact"), rows)
