"""A zoo corpus on disk: real mp4 files, metadata.csv, and the true motion of every clip beside it."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from motive.errors import UserError
from motive.runs.csv_text import write_csv
from motive.runs.progress import Progress
from motive.zoo.captions import SAME_CAPTION, caption_of
from motive.zoo.motions import CAMERAS, KINDS
from motive.zoo.scene import Scene, Truth, draw_scene, render_frames, true_motion

FPS = 16
LENGTHS = (9, 17, 33)  # frames; 4k + 1, as Wan's VAE takes them

COLUMNS = (
    "file_name",
    "caption",
    "motion",
    "camera",
    "frames",
    "shape",
    "texture",
    "color",
    "color2",
    "background",
    "background_color",
    "radius",
    "distractors",
    "truth",
)


def render_corpus(
    out: Path,
    count: int,
    *,
    seed: int = 0,
    kinds: Sequence[str] | None = None,
    camera: str | None = None,
    same_caption: bool = False,
    lengths: Sequence[int] = LENGTHS,
    progress: Progress | None = None,
) -> None:
    """Render `count` clips of corpus `seed` into the new folder `out`.

    Kinds take turns, so that each has its share; lengths are drawn. Clip i does not depend on how many
    clips there are. `clips/NNNNNN.mp4` are the clips, `truth/NNNNNN.npz` their true motion
    (`from_previous` and `from_first` displacement in pixels as float16, `object_mask`, `camera`),
    `metadata.csv` their labels.

    kinds: all of the zoo's by default.
    camera: films every clip with this camera instead of its kind's own.
    same_caption: every caption says only "a shape in a scene".

    Raises UserError for an unknown kind or camera, or a folder that holds something.
    """
    chosen = list(kinds or KINDS)
    for kind in chosen:
        if kind not in KINDS:
            raise UserError(f"the zoo has no kind '{kind}': use {', '.join(KINDS)}")
    if camera is not None and camera not in CAMERAS:
        raise UserError(f"the zoo has no camera '{camera}': use {', '.join(CAMERAS)}")
    if count < 1:
        raise UserError("the zoo renders at least one clip: use --count 1 or more")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is not empty: choose another --out")
    (out / "clips").mkdir(parents=True, exist_ok=True)
    (out / "truth").mkdir(exist_ok=True)
    rows = []
    with (progress or Progress(quiet=True)).stage("render", count) as advance:
        for i in range(count):
            frames = int(np.random.default_rng([seed, i, 3]).choice(lengths))
            kind = chosen[i % len(chosen)]
            scene = draw_scene(kind, frames, seed=seed, index=i, camera=camera)
            write_mp4(out / "clips" / f"{i:06d}.mp4", render_frames(scene), FPS)
            write_truth(out / "truth" / f"{i:06d}.npz", true_motion(scene))
            rows.append(_row(scene, i, SAME_CAPTION if same_caption else caption_of(scene)))
            advance(f"{i:06d}.mp4 {kind}")
    # Last, so that a folder with metadata is a complete one.
    write_csv(out / "metadata.csv", COLUMNS, rows)


def _row(scene: Scene, index: int, caption: str) -> dict[str, object]:
    return {
        "file_name": f"clips/{index:06d}.mp4",
        "caption": caption,
        "motion": scene.kind,
        "camera": scene.camera,
        "frames": scene.frames,
        **scene.look.labels(),
        "truth": f"truth/{index:06d}.npz",
    }


def write_mp4(path: Path, frames_fhw3: np.ndarray, fps: int) -> None:
    """H.264 in mp4, 4:2:0 as real clips are, at a quality that hides nothing."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width = frames_fhw3.shape[1:3]
        stream.pix_fmt = "yuv420p"
        # One thread: x264's output depends on how many share the work.
        # No macroblock tree: for frames this small it makes other bytes from run to run.
        # One quantiser for every frame and block: what stands still is then mostly skipped, instead of
        # being coded anew a little differently, which a tracker takes for motion.
        stream.options = {
            "qp": "12",
            "preset": "medium",
            "threads": "1",
            "x264-params": "mbtree=0:aq-mode=0:ipratio=1:pbratio=1",
        }
        stream.time_base = Fraction(1, fps)
        for image in frames_fhw3:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def write_truth(path: Path, truth: Truth) -> None:
    """The true motion as a compressed npz."""
    np.savez_compressed(
        path,
        from_previous=truth.from_previous_fhw2.astype(np.float16),
        from_first=truth.from_first_fhw2.astype(np.float16),
        object_mask=truth.object_mask_fhw,
        camera=truth.camera_f23.astype(np.float32),
    )


def read_truth(path: Path) -> Truth:
    """What `write_truth` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        return Truth(
            stored["from_previous"].astype(np.float64),
            stored["from_first"].astype(np.float64),
            stored["object_mask"],
            stored["camera"].astype(np.float64),
        )
