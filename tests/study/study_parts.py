"""What several tests of the study need: a server in a process of its own, and simulated judgements."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

import numpy as np

from motive.study.judgements import Judgement, Winner
from motive.study.roster import read_tokens

PROMPTS = ("a ball rolls over a table", "a <b>leaf falls & turns")


class Served:
    """`motive study serve` in a process of its own. address: where it listens."""

    def __init__(self, study: Path, port: int = 0, database: str | None = None) -> None:
        self._study = study
        words = [sys.executable, "-m", "motive.cli", "study", "serve", str(study)]
        words += ["--port", str(port)] + (["--database", database] if database else [])
        self.process = subprocess.Popen(
            words, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
        )
        assert self.process.stdout is not None
        self.said: list[str] = []
        for line in self.process.stdout:
            self.said.append(line.rstrip("\n"))
            if line.startswith("serving "):
                break
        assert self.said, "it ended without a word"
        assert self.said[-1].startswith("serving "), self.said
        self.address = self.said[-1].split(" on ")[1].partition(";")[0]
        self.port = int(self.address.rpartition(":")[2])

    def link(self, name: str) -> str:
        """An annotator's link."""
        return f"{self.address}/join/{read_tokens(self._study)[name]}"

    def kill(self) -> None:
        """SIGKILL: nothing is tidied up."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def __enter__(self) -> "Served":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.terminate()
        self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()


def judgements_of(
    values_n: np.ndarray,
    annotators_n: np.ndarray,
    videos_n: np.ndarray,
    arms: tuple[str, str] = ("motive", "base"),
) -> list[Judgement]:
    """Judgements whose values are 1, 1/2 or 0 for the first arm."""
    winners: dict[float, Winner] = {1.0: "a", 0.5: "tie", 0.0: "b"}
    return [
        Judgement(f"annotator {a}", f"prompt {v}", 0, *arms, winners[float(x)])
        for x, a, v in zip(values_n, annotators_n, videos_n, strict=True)
    ]


def clustered_answers(
    rng: np.random.Generator,
    annotators: int,
    videos: int,
    *,
    by_annotator: float,
    by_video: float,
    shift: float,
    ties: float = 0.35,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Everybody judges every video: values, annotators, videos.

    An answer is a latent preference, `shift` and what is the annotator's and the video's own (normal,
    with these deviations) and logistic noise: a tie where it is within `ties` of 0.
    """
    person = rng.normal(0, by_annotator, annotators)[:, None]
    video = rng.normal(0, by_video, videos)[None]
    latent = shift + person + video + rng.logistic(size=(annotators, videos))
    values = np.where(latent > ties, 1.0, np.where(latent < -ties, 0.0, 0.5))
    annotators_n, videos_n = np.indices(values.shape)
    return values.ravel(), annotators_n.ravel(), videos_n.ravel()
