"""The setting of the counterfactual studies: which corpora, how they are trained on, what is measured."""

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from counterfactual_corpora import Corpus, CorpusPlan
from counterfactual_gradients import Gradients
from counterfactual_judging import Judge
from counterfactual_retraining import Measurement, Retraining, random_subsets
from counterfactual_scores import Features

from motive.finetuning.loop import TrainingPlan

TRAINING = TrainingPlan(steps=100, batch=8, lr=5e-5)
MEASUREMENT = Measurement(draws=12, noise_seed=0)


@dataclass(frozen=True)
class Setting:
    """Sizes of the study.

    corpora: their seeds. Choices were made on another (a pilot, seed 29), with a loop of its own.
    subsets: retrained of each corpus, each a random `share` of the clips, with every one of `seeds`.
    training: AdamW at the base model's own distribution of timesteps, constant rate.
    draws: timesteps and noises of the gradient sums; queries have twice as many.
    dim: of the widest features.
    """

    corpora: tuple[int, ...] = (41, 42)
    clips: int = 140
    queries: int = 40
    lengths: tuple[int, ...] = (9,)
    subsets: int = 40
    share: float = 0.25
    seeds: tuple[int, ...] = (0, 1)
    training: TrainingPlan = TRAINING
    measurement: Measurement = MEASUREMENT
    draws: int = 16
    dim: int = 8192
    removals: int = 4  # random ones, to compare with
    resamples: int = 200  # of each bootstrap

    def described(self) -> dict[str, Any]:
        return asdict(self)


# It shows that everything runs, and nothing else.
QUICK = Setting(
    corpora=(41,),
    clips=14,
    queries=10,
    subsets=4,
    training=TrainingPlan(steps=2, batch=4, lr=5e-5),
    measurement=Measurement(draws=2, noise_seed=0),
    draws=2,
    dim=512,
    removals=1,
    resamples=10,
)


class Studied:
    """One corpus of a setting, with its retrainings and gradients, made or taken up in `work`."""

    def __init__(self, setting: Setting, seed: int, work: Path) -> None:
        self.setting, self.seed = setting, seed
        plan = CorpusPlan(seed, setting.clips, setting.queries, setting.lengths)
        self.corpus = Corpus(work / str(seed), plan)
        self.retraining = Retraining(
            self.corpus, setting.training, setting.measurement, work / str(seed) / "retraining"
        )
        self.gradients = Gradients(self.corpus, work / str(seed) / "gradients", setting.dim)

    def features(self, dim: int) -> Features:
        return Features(self.gradients, self.setting.draws, dim)

    def judge(self, say: Callable[[str], None] = print) -> Judge:
        """Train on every subset that was not yet trained on."""
        setting, count = self.setting, self.setting.subsets
        members = random_subsets(count, setting.clips, setting.share, self.seed)
        losses = []
        for number, row in enumerate(members, start=1):
            chosen = np.flatnonzero(row)
            losses.append([self.retraining.losses(chosen, seed) for seed in setting.seeds])
            say(f"corpus {self.seed}: subset {number} of {count}")
        return Judge(self.corpus, np.array(losses).swapaxes(0, 1), members, setting.resamples)


def setting_from(arguments: list[str] | None, description: str) -> tuple[Setting, Path, Path]:
    """The setting, the folder of the results and that of the work, from the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--work", type=Path, help="folder of corpora, trainings and gradients")
    parser.add_argument("--quick", action="store_true", help="a short version that shows nothing")
    options = parser.parse_args(arguments)
    # On a model this small a second thread costs more in waiting than it computes.
    torch.set_num_threads(1)
    setting = QUICK if options.quick else Setting()
    work = options.work or Path("runs") / (
        "counterfactuals-quick" if options.quick else "counterfactuals"
    )
    options.out.mkdir(parents=True, exist_ok=True)
    return setting, options.out, work
