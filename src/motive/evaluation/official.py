"""The official VBench, in an environment of its own: a process is started and its result is read.

VBench needs versions of torch and transformers that this package does not, and networks whose licences
keep them out of it. Its numbers are reported as its own.
"""

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from motive.errors import UserError
from motive.evaluation import vbench_driver
from motive.evaluation.networks.choice import MissingNetworkError, Networks


@dataclass(frozen=True)
class OfficialResult:
    """What VBench said of a dimension.

    score: its aggregate. values: a number for each video, in its own units, by file name.
    identity: its version and device.
    """

    score: float
    values: dict[str, float]
    identity: str


class OfficialVBench:
    """The VBench that a Python interpreter imports.

    Raises UserError when there is no such program.
    """

    def __init__(self, python: Path, networks: Networks) -> None:
        if not (python.is_file() and os.access(python, os.X_OK)):
            raise UserError(
                f"there is no program {python}: give --vbench-python the python of VBench's "
                "environment, as in vbench-env/bin/python"
            )
        self._python, self._networks = python, networks

    @property
    def settings(self) -> str:
        """What a result depends on beside the videos."""
        return f"{self._python.absolute()} {self._networks.device} {self._networks.imaging_mode}"

    def evaluate(self, dimension: str, videos: Sequence[Path]) -> OfficialResult:
        """One dimension over exactly these videos, which have different names.

        Raises MissingNetworkError when VBench ends without a result.
        """
        with TemporaryDirectory(prefix="motive-vbench-") as folder:
            chosen, out = Path(folder, "videos"), Path(folder, "out")
            chosen.mkdir()
            out.mkdir()
            for video in videos:
                (chosen / video.name).symlink_to(video.resolve())
            self._run(dimension, chosen, out)
            return _read(dimension, out, {video.name for video in videos})

    def _run(self, dimension: str, videos: Path, out: Path) -> None:
        networks = self._networks
        # Absolute, but not resolved: a virtual environment is found by its link's place.
        python, driver = self._python.absolute(), Path(vbench_driver.__file__).resolve()
        settings = networks.device, networks.imaging_mode
        done = subprocess.run(
            [str(word) for word in (python, driver, videos, dimension, out, *settings)],
            capture_output=True,
            text=True,
            check=False,
            cwd=out,  # VBench writes beside itself
        )
        if done.returncode:
            lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
            said = lines[-1][:300] if lines else f"exit code {done.returncode}"
            raise MissingNetworkError(
                f"the official VBench ends without a result ({said})",
                f"run {self._python} -c 'import vbench' and see its own installation guide",
            )


def _read(dimension: str, out: Path, names: set[str]) -> OfficialResult:
    try:
        content = json.loads((out / "motive_eval_results.json").read_text(encoding="utf-8"))
        version = json.loads((out / "version.json").read_text(encoding="utf-8"))
        score, videos = content[dimension]
        values = {_name(video): float(video["video_results"]) for video in videos}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MissingNetworkError(
            f"the official VBench left no result that can be read ({type(error).__name__}: {error})",
            "use the version that docs/evaluation.md names",
        ) from error
    if values.keys() != names:
        raise MissingNetworkError(
            f"the official VBench judged {len(values)} of {len(names)} videos",
            "look at what it says when it is run by hand",
        )
    identity = f"official VBench {version['vbench']} on {version['device']}"
    return OfficialResult(float(score), values, identity)


def _name(video: dict[str, Any]) -> str:
    return Path(video["video_path"]).name
