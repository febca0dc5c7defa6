"""The page and the figure of the counterfactual study."""

from pathlib import Path
from typing import Any

import numpy as np

from motive.zoo.check import mean_interval


def between(values: Any, form: str = ".2f") -> str:
    low, high = values
    return f"{low:{form}} … {high:{form}}"


def write_counterfactual_page(out: Path, results: dict[str, Any]) -> None:
    corpora, setting = results["corpora"], results["setting"]
    draw_figure(out / "counterfactuals.png", corpora)
    lines = [
        "# Counterfactuals: does a score predict what training does?",
        "",
        "Made by `python scripts/counterfactuals.py --out docs/results/counterfactuals`; all numbers are in",
        "`counterfactuals.json`.",
        "",
        f"`tiny-wan`; corpora {', '.join(str(c['seed']) for c in corpora)}, each of {setting['clips']} "
        f"MotionZoo clips of {' and '.join(map(str, setting['lengths']))} frames of all 14",
        f"kinds with one caption, and {setting['queries']} queries of the ten motions, less those without "
        "motion. Of each corpus",
        f"{setting['subsets']} random subsets of {setting['share']:.0%} were trained on from the base model, "
        f"{len(setting['seeds'])} seeds each with common random",
        f"numbers: {setting['training']['steps']} steps of {setting['training']['batch']}, AdamW at "
        f"{setting['training']['lr']:g}. A query's loss is the mean over "
        f"{setting['measurement']['draws']} timesteps (quantiles",
        "of what training draws from), each with a noise that nothing else has seen: *masked* is weighed by "
        "the query's own",
        "motion mask, *plain* is not. LDS: Spearman over subsets between the summed scores of the subset's "
        "clips and minus",
        "the loss (mean of the seeds), mean over queries; intervals by bootstrap over subsets, then over "
        "queries.",
        "Precision: share of the query's top 10% with the query's motion.",
    ]
    for corpus in corpora:
        lines += corpus_lines(corpus)
    lines += removal_lines(corpora)
    lines += ["", "![LDS of every method](counterfactuals.png)", ""]
    notes = out / "notes.md"
    if notes.is_file():
        lines += ["", notes.read_text(encoding="utf-8").rstrip()]
    (out / "README.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def corpus_lines(corpus: dict[str, Any]) -> list[str]:
    ceilings = corpus["ceilings"]
    lines = [
        "",
        f"## Corpus {corpus['seed']}",
        "",
        f"{corpus['queries']} queries. Base loss {corpus['base_loss'][0]:.4f} masked, "
        f"{corpus['base_loss'][1]:.4f} plain; mean after training "
        f"{corpus['mean_loss'][0]:.4f}, {corpus['mean_loss'][1]:.4f}.",
        "Noise ceiling: "
        + "; ".join(
            f"{kind} {c['ceiling']:.3f} ({between(c['over_subsets'], '.3f')} over subsets), two seeds "
            f"correlate {c['seed_correlation']:.2f}"
            for kind, c in ceilings.items()
        )
        + ".",
        "",
        "| method | LDS masked | over subsets | over queries | of ceiling | more than paper "
        "| LDS plain | over subsets | of ceiling | precision |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in corpus["methods"].items():
        masked, plain = found["masked"], found["plain"]
        gain, low, high = corpus["over_paper"][name]["masked"]
        lines.append(
            f"| {name} | {masked['lds']:.3f} | {between(masked['over_subsets'])} | "
            f"{between(masked['over_queries'])} | {masked['of_ceiling']:.0%} | "
            f"{gain:+.2f} ({low:+.2f} … {high:+.2f}) | {plain['lds']:.3f} | "
            f"{between(plain['over_subsets'])} | {plain['of_ceiling']:.0%} | "
            f"{found['precision']['mean']:.3f} ({between(found['precision']['over_queries'])}) |"
        )
    return lines


def removal_lines(corpora: list[dict[str, Any]]) -> list[str]:
    found = next(corpus["removal"] for corpus in corpora if corpus["removal"])
    random = np.array(found["random"])
    lines = [
        "",
        "## Without the best 10%",
        "",
        f"Corpus {corpora[0]['seed']}: the 10% with most votes of all queries together are taken out, the "
        "other 90% trained on as",
        "above. Mean loss of the queries, as a difference to taking out random clips, in percent; above 0 "
        "the clips were missed.",
        "Interval: 95%, Student's t, of the random removals around their mean.",
        "",
        "| taken out | masked | plain |",
        "|---|---|---|",
    ]
    mean = random.mean(0)
    for name, losses in found.items():
        cells = []
        for kind in range(2):
            if name == "random":
                _, low, high = mean_interval((100 * (random[:, kind] / mean[kind] - 1)).tolist())
                cells.append(f"0 ({low:+.2f} … {high:+.2f})")
            else:
                values = np.array(losses)[:, kind]
                by_seed = ", ".join(f"{100 * (v / mean[kind] - 1):+.2f}" for v in values)
                cells.append(f"{100 * (values.mean() / mean[kind] - 1):+.2f} (by seed {by_seed})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def draw_figure(path: Path, corpora: list[dict[str, Any]]) -> None:
    """LDS with its interval over subsets, methods below each other, corpora beside each other."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names = list(corpora[0]["methods"])[::-1]
    figure, axes = plt.subplots(
        1, len(corpora), figsize=(4 + 3.2 * len(corpora), 4.6), sharey=True, squeeze=False
    )
    for axis, corpus in zip(axes[0], corpora, strict=True):
        for kind, shift, color in (("masked", 0.15, "#1f5fa8"), ("plain", -0.15, "#d08a2d")):
            for place, name in enumerate(names):
                found = corpus["methods"][name][kind]
                low, high = found["over_subsets"]
                axis.plot([low, high], [place + shift] * 2, color=color, lw=1.2)
                axis.plot(
                    found["lds"],
                    place + shift,
                    "o",
                    color=color,
                    ms=4,
                    label=f"{kind} loss" if place == 0 else None,
                )
            axis.axvline(corpus["ceilings"][kind]["ceiling"], color=color, ls=":", lw=1)
        axis.axvline(0, color="#888888", lw=0.6)
        axis.set_yticks(range(len(names)), names)
        axis.set_xlabel("LDS (dotted: noise ceiling)")
        axis.set_title(f"corpus {corpus['seed']}")
    axes[0][0].legend(loc="upper right", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=130, metadata={"Software": None})
    plt.close(figure)
