"""Do scores predict what training does? Numbers for docs/results/counterfactuals.

    python scripts/counterfactuals.py --out docs/results/counterfactuals [--work DIR] [--quick]

Random quarters of each corpus are trained on from the base model, twice each, by the product's own loop, and
held-out queries' losses are predicted from the summed scores of the quarter's clips (linear datamodelling
score). Then the 10% that a method ranks highest are taken out of the corpus and the rest is trained on, and
so are random 10%. Every training is a file in `--work`; an interrupted study goes on where it was.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from counterfactual_judging import LOSSES
from counterfactual_page import write_counterfactual_page
from counterfactual_scores import Scores, baselines, single_draw, winners
from counterfactual_setting import Setting, Studied, setting_from

from motive.influence.selection import rank_clips

REMOVED = 0.10  # of the clips
PAPER = "Motive (paper)"


def methods_of(studied: Studied) -> dict[str, Scores]:
    features = studied.features(studied.setting.dim)
    return {**baselines(studied.corpus, studied.seed), **single_draw(features), **winners(features)}


def study_corpus(setting: Setting, seed: int, work: Path) -> dict[str, Any]:
    """Everything about one corpus."""
    studied = Studied(setting, seed, work)
    judge = studied.judge()
    scores = {name: method() for name, method in methods_of(studied).items()}
    return {
        "seed": seed,
        "queries": len(studied.corpus.members["query"]),
        "base_loss": studied.retraining.base_losses().mean(0).tolist(),
        "mean_loss": judge.losses.mean((0, 1, 2)).tolist(),
        "ceilings": judge.ceilings(),
        "methods": {name: judge.verdict(values) for name, values in scores.items()},
        "over_paper": {
            name: {kind: judge.gain(values, scores[PAPER], k) for k, kind in enumerate(LOSSES)}
            for name, values in scores.items()
        },
        "removal": removal(studied, scores) if seed == setting.corpora[0] else None,
        "seconds": round(studied.retraining.seconds()),
        "raw": {
            "members": [np.flatnonzero(row).tolist() for row in judge.members],
            "losses": np.round(judge.losses, 6).tolist(),
        },
    }


def removal(studied: Studied, scores: dict[str, np.ndarray]) -> dict[str, Any]:
    """Mean losses after training without a method's best 10% of clips, and without random 10%."""
    corpus, setting = studied.corpus, studied.setting
    ids = [m.clip_id for m in corpus.members["clip"]]
    count = max(1, round(REMOVED * len(ids)))
    found: dict[str, Any] = {}

    def without(removed: np.ndarray) -> list[list[float]]:
        kept = np.setdiff1d(np.arange(len(ids)), removed)
        return [studied.retraining.losses(kept, s).mean(0).tolist() for s in setting.seeds]

    for name in ("motion magnitude", "Motive without the mask", PAPER, "effect", "motion-effect"):
        values = np.asarray(scores[name], np.float32)
        ranking = rank_clips(list(values), ids, fraction=REMOVED, percentile=90)
        found[name] = without(ranking.order[:count])
        print(f"removed by {name}", flush=True)
    found["random"] = []
    for draw in range(setting.removals):
        rng = np.random.default_rng([studied.seed, 8, draw])
        found["random"] += without(rng.choice(len(ids), count, replace=False))
    return found


def main(arguments: list[str] | None = None) -> None:
    setting, out, work = setting_from(arguments, __doc__.splitlines()[0])
    corpora = [study_corpus(setting, seed, work) for seed in setting.corpora]
    results = {"setting": setting.described(), "corpora": corpora}
    (out / "counterfactuals.json").write_text(json.dumps(results) + "\n", encoding="utf-8")
    write_counterfactual_page(out, results)


if __name__ == "__main__":
    main()
