"""The page and the figure of the study of estimators."""

from pathlib import Path
from typing import Any

from counterfactual_page import between


def write_estimator_page(out: Path, results: dict[str, Any]) -> None:
    corpora, setting = results["corpora"], results["setting"]
    draw_figure(out / "estimators.png", corpora, setting)
    lines = [
        "# Which estimator predicts training, and finds the motion?",
        "",
        "Made by `python scripts/estimators.py --out docs/results/estimators`; all numbers are in "
        "`estimators.json`.",
        "The setting is that of [the counterfactuals](../counterfactuals/README.md). LDS with its interval "
        "over subsets, then its",
        "share of the noise ceiling; precision of the top 10%. A draw is a (t, ε). Gradient sums are over "
        f"{setting['draws']} draws of a",
        f"clip and {2 * setting['draws']} of a query, half of which have the clips' noise. The paper's, and "
        "whatever says *one draw*, are of one.",
    ]
    for dim in sorted(corpora[0]["dims"], key=int, reverse=True):
        lines += [
            "",
            f"## Features of {dim} numbers",
            "",
            "| estimator | "
            + " | ".join(
                f"corpus {c['seed']}: LDS masked | of ceiling | LDS plain | precision"
                for c in corpora
            )
            + " |",
            "|---" * (1 + 4 * len(corpora)) + "|",
        ]
        names = list(dict.fromkeys(name for c in corpora for name in c["dims"][dim]))
        for name in names:
            cells = [cell(c["dims"][dim].get(name)) for c in corpora]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "![LDS against precision](estimators.png)", ""]
    notes = out / "notes.md"
    if notes.is_file():
        lines += [notes.read_text(encoding="utf-8").rstrip()]
    (out / "README.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def cell(found: dict[str, Any] | None) -> str:
    if found is None:
        return " | | | "
    masked, plain = found["masked"], found["plain"]
    return (
        f"{masked['lds']:.3f} ({between(masked['over_subsets'])}) | {masked['of_ceiling']:.0%} | "
        f"{plain['lds']:.3f} | {found['precision']['mean']:.3f}"
    )


def draw_figure(path: Path, corpora: list[dict[str, Any]], setting: dict[str, Any]) -> None:
    """Precision against LDS, a point for each estimator, a panel for each corpus."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    named = {
        "Motive (paper)": "#b03030",
        "Motive without the mask": "#8a6d3b",
        "effect": "#1f5fa8",
        "motion-effect": "#2b8a4b",
    }
    figure, axes = plt.subplots(
        1, len(corpora), figsize=(1 + 3.6 * len(corpora), 3.8), sharey=True, squeeze=False
    )
    for axis, corpus in zip(axes[0], corpora, strict=True):
        for name, found in corpus["dims"][str(setting["dim"])].items():
            at = found["masked"]["lds"], found["precision"]["mean"]
            axis.plot(*at, "o", color=named.get(name, "#bbbbbb"), ms=7 if name in named else 4)
            if name in named:
                axis.annotate(
                    name, at, textcoords="offset points", xytext=(0, 7), ha="center", fontsize=8
                )
        axis.axvline(corpus["ceilings"]["masked"]["ceiling"], color="#555555", ls=":", lw=1)
        axis.set_xlabel("LDS, masked loss (dotted: ceiling)")
        axis.set_title(f"corpus {corpus['seed']}", fontsize=10)
    axes[0][0].set_ylabel("precision of the top 10%")
    figure.tight_layout()
    figure.savefig(path, dpi=130, metadata={"Software": None})
    plt.close(figure)
