"""The paper's ablations on a rendered corpus. Numbers for docs/results/ablations.

    python scripts/ablations.py --out docs/results/ablations [--work DIR] [--quick]

One timestep against ten; each projection against the whole gradient, by dimension; what a clip's length
does to norms, raw scores and influence; how much the chosen clips move; what the ten motions' best clips have
in common; and what attribution for less keeps of the ranking: smaller or shorter clips, some parameters only.

Whole gradients are made a batch at a time, and everything else is a run's own features: an interrupted study
goes on where it was.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from ablation_agreement import projections, timesteps
from ablation_choice import length, magnitude, overlap
from ablation_page import write_ablation_page
from ablation_savings import blocks, samplings
from ablation_setting import QUICK, Setting, Study
from ablation_whole import WholeGradients

from motive.runs.provenance import write_atomically


def ablate(setting: Setting, work: Path) -> dict[str, Any]:
    """All numbers."""
    study = Study(setting, work)
    whole = WholeGradients(study)
    whole.compute()
    found: dict[str, Any] = {
        "setting": setting.described(),
        "moving": {role: len(ids) for role, ids in study.moving.items()},
        "numbers": int(whole.sizes.sum()),
    }
    for name, part in (
        ("timesteps", lambda: timesteps(study, whole)),
        ("projections", lambda: projections(study, whole)),
        ("length", lambda: length(study)),
        ("magnitude", lambda: magnitude(study)),
        ("overlap", lambda: overlap(study)),
        ("savings", lambda: {**samplings(study, whole), **blocks(study, whole)}),
    ):
        found[name] = part()
        print(f"{name} done", flush=True)
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--work", type=Path, help="folder of the corpus, features and gradients")
    parser.add_argument("--quick", action="store_true", help="a short version that shows nothing")
    options = parser.parse_args(arguments)
    # On a model this small a second thread costs more in waiting than it computes.
    torch.set_num_threads(1)
    work = options.work or Path("runs") / ("ablations-quick" if options.quick else "ablations")
    results = ablate(QUICK if options.quick else Setting(), work)
    options.out.mkdir(parents=True, exist_ok=True)
    write_atomically(options.out / "ablations.json", json.dumps(results) + "\n")
    write_ablation_page(options.out, results)


if __name__ == "__main__":
    main()
