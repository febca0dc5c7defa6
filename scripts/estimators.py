"""Which estimator of influence is worth its cost? Numbers for docs/results/estimators.

    python scripts/estimators.py --out docs/results/estimators [--work DIR] [--quick]

The retrainings of `scripts/counterfactuals.py` (made here where they are missing) are held against many
estimators, in several dimensions of the projection. Choices were made on a pilot corpus.
"""

import json
from pathlib import Path
from typing import Any

from counterfactual_scores import (
    Scores,
    baselines,
    candidates,
    single_draw,
    winners,
    without_metric,
)
from counterfactual_setting import Setting, Studied, setting_from
from estimator_page import write_estimator_page

DIMENSIONS = (512, 2048)  # besides the widest


def methods_of(studied: Studied, dim: int) -> dict[str, Scores]:
    features = studied.features(dim)
    found = {**single_draw(features), **winners(features)}
    if dim == studied.setting.dim:
        chance = baselines(studied.corpus, studied.seed)
        found = {"random": chance["random"], **found, **candidates(features)}
        if studied.seed == studied.setting.corpora[0]:
            found |= without_metric(features)
    return found


def study_corpus(setting: Setting, seed: int, work: Path) -> dict[str, Any]:
    studied = Studied(setting, seed, work)
    judge = studied.judge()
    dims = sorted({*(d for d in DIMENSIONS if d < setting.dim), setting.dim})
    return {
        "seed": seed,
        "ceilings": judge.ceilings(),
        "dims": {
            str(dim): {
                name: judge.verdict(method()) for name, method in methods_of(studied, dim).items()
            }
            for dim in dims
        },
    }


def main(arguments: list[str] | None = None) -> None:
    setting, out, work = setting_from(arguments, __doc__.splitlines()[0])
    corpora = [study_corpus(setting, seed, work) for seed in setting.corpora]
    results = {"setting": setting.described(), "corpora": corpora}
    (out / "estimators.json").write_text(json.dumps(results) + "\n", encoding="utf-8")
    write_estimator_page(out, results)


if __name__ == "__main__":
    main()
