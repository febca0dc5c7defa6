"""The page, the table and the figure of the study of artifacts, from its results."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from motive.runs.provenance import write_atomically
from motive.zoo.artifacts import ARTIFACTS, HOSTS
from motive.zoo.check import mean_interval

_ARM_ORDER = ("base", "all", "found removed", "random removed", "planted removed")


def write_artifact_page(out: Path, results: dict[str, Any]) -> None:
    """`artifacts.json`, `artifacts.png` and `README.md`, with `notes.md` of `out` below what was found."""
    write_atomically(out / "artifacts.json", json.dumps(results, indent=1) + "\n")
    draw_figure(out / "artifacts.png", results)
    lines = _setting_lines(results)
    if "detectors" in results:
        lines += _detector_lines(results)
    lines += _query_lines(results)
    for model, found in results["retrieval"].items():
        lines += _retrieval_lines(model, found)
    lines += [*_dropped_lines(results), *_rate_lines(results), "", "![Figure](artifacts.png)"]
    if (out / "examples.png").is_file():
        lines += [
            "",
            "Every other frame; for each artifact a planted clip, one of the queries that the tuned model "
            "made (where it made",
            "any), then one prompt by the base, by the model tuned on all, and by the one tuned without "
            "the planted clips:",
            "",
            "![Clips](examples.png)",
        ]
    notes = out / "notes.md"
    if notes.is_file():
        lines += ["", notes.read_text(encoding="utf-8").rstrip()]
    write_atomically(out / "README.md", "\n".join(lines).rstrip() + "\n")


def _setting_lines(results: dict[str, Any]) -> list[str]:
    size = results["setting"]
    bad = ", ".join(f"{count} {_said(kind)}" for kind, count in size["planted"].items())
    hosts = ", ".join(f"{_said(kind)}: {_said(host)}" for kind, host in HOSTS.items())
    return [
        "# Artifacts: does `motive diagnose` find the clips that teach one?",
        "",
        "Made by `python scripts/artifacts.py --out docs/results/artifacts --work runs/artifacts`; all "
        "numbers are in",
        "`artifacts.json`.",
        "",
        f"`tiny-wan`; {size['clips']} MotionZoo clips of 17 frames, of which "
        f"{sum(size['planted'].values())} are bad ({bad}).",
        f"A bad clip is of one motion ({hosts}),",
        "its caption tells that motion and nothing of the fault, and there are good clips of every motion.",
        f"A training has {size['steps']} steps of {size['batch']}, AdamW at {size['lr']:g}, all weights.",
    ]


def _detector_lines(results: dict[str, Any]) -> list[str]:
    found = results["detectors"]
    lines = [
        "",
        "## The detectors",
        "",
        "What they measure is said in `scripts/artifact_detectors.py`. Thresholds were fixed on rendered "
        "clips through the model's",
        "VAE; the errors are of other such clips.",
        "",
        "| artifact | threshold | missed | seen in good clips of the same motion | in all good clips |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for kind in ARTIFACTS:
        errors = found["errors"][kind]
        lines.append(
            f"| {_said(kind)} | {found['thresholds'][kind]:.2f} | {errors['missed']:.0%} | "
            f"{errors['false_in_host']:.0%} | {errors['false_in_all']:.0%} |"
        )
    return lines


def _query_lines(results: dict[str, Any]) -> list[str]:
    most = results["setting"]["queries"]
    lines = [
        "",
        "## Queries",
        "",
        f"*rendered*: {most} rendered clips of each kind that nothing was trained on. A query whose "
        "motion the tracker does not see",
        f"has no masked gradient, and is left out for every method: {_counted(results)} are used.",
    ]
    if "own_queries" in results:
        said = ", ".join(
            f"{_said(kind)} in {found['showing']} of {found['made']}"
            for kind, found in results["own_queries"].items()
        )
        lines += [
            "",
            "*own*: videos that the model tuned on all clips made of captions of the artifact's motion, "
            "those in which the",
            f"detector sees it: {said}; at most {most} of each kind are queries.",
        ]
    return lines


def _counted(results: dict[str, Any]) -> str:
    found = next(iter(results["retrieval"].values()))
    return " and ".join(
        f"{found[origin]['queries']['all']} {origin} ones"
        for origin in ("rendered", "own")
        if origin in found
    )


def _retrieval_lines(model: str, found: dict[str, Any]) -> list[str]:
    which = "the model tuned on all clips" if model == "tuned" else "the base model"
    kinds = ["all", *ARTIFACTS]
    same = [column for column in found["magnitude"] if column not in kinds]
    lines = ["", f"## Finding the planted clips: gradients of {which}"]
    for measure, columns, title in (
        ("auc", kinds, "Area under the ROC curve"),
        ("precision", kinds, "Precision among as many of the best as were planted"),
        ("auc", same, "Area under the ROC curve, against the good clips of the same motion alone"),
    ):
        heads = [_said(column.removesuffix(", same motion")) for column in columns]
        lines += [
            "",
            f"{title}, 95% interval over queries (of random: over draws):",
            "",
            f"| queries, method | {' | '.join(heads)} |",
            f"| --- | {' | '.join('---:' for _ in columns)} |",
        ]
        for name, row in _methods(found).items():
            cells = (_cell(row[c][measure]) if c in row else "" for c in columns)
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _methods(found: dict[str, Any]) -> dict[str, Any]:
    """Rows by name, with the baselines first: they have every column."""
    rows = {name: found[name] for name in ("random", "magnitude")}
    for origin in ("own", "rendered"):
        if origin in found:
            for method, row in found[origin].items():
                if method != "queries" and row:
                    rows[f"{origin}, {method}"] = row
    return rows


def _cell(values: list[float]) -> str:
    value, *interval = values
    between = f" ({interval[0]:.2f} … {interval[1]:.2f})" if interval else ""
    return f"{value:.2f}{between}"


def _dropped_lines(results: dict[str, Any]) -> list[str]:
    if "dropped" not in results:
        return []
    dropped = results["dropped"]
    said = "; ".join(
        f"{_said(kind)}: {found['hits']} of {found['dropped']} right"
        for kind, found in dropped["kinds"].items()
    )
    return [
        "",
        "## What dropping them does",
        "",
        f"For each artifact of which there are {dropped['origin']} queries, `motive diagnose` on them puts "
        "clips first (tuned model);",
        f"as many as were planted of it are dropped, {len(dropped['clips'])} in all ({said}). *random "
        "removed* drops as many.",
    ]


def _rate_lines(results: dict[str, Any]) -> list[str]:
    rates = results["rates"]
    if not rates:
        return []
    trained = next((len(rates[arm]["flicker"]) for arm in rates if arm != "base"), 0)
    planned = len(results["setting"]["seeds"])
    seeds = str(planned) if trained == planned else f"{trained} so far of {planned}"
    count = results["setting"]["prompts"]
    lines = [
        "",
        f"Share of {count} videos of the artifact's motion in which it is seen, mean over training seeds "
        f"({seeds})",
        "with a 95% interval (Student's t), then the mean of the measure:",
        "",
        f"| trained on | {' | '.join(_said(kind) for kind in ARTIFACTS)} |",
        f"| --- | {' | '.join('---:' for _ in ARTIFACTS)} |",
    ]
    for arm in _ARM_ORDER:
        if arm in rates:
            cells = (_rate_cell(rates[arm][kind].values()) for kind in ARTIFACTS)
            lines.append(f"| {arm} | {' | '.join(cells)} |")
    return lines


def _rate_cell(seeds: Iterable[dict[str, float]]) -> str:
    found = list(seeds)
    mean, low, high = mean_interval([f["rate"] for f in found])
    between = f" ({max(0.0, low):.2f} … {min(1.0, high):.2f})" if len(found) > 1 else ""
    return f"{mean:.2f}{between}; {sum(f['mean'] for f in found) / len(found):.2f}"


def _said(name: str) -> str:
    return name.replace("_", " ")


def draw_figure(path: Path, results: dict[str, Any]) -> None:
    """The area under the curve by method and, once there are some, the rate of each artifact by arm."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = 2 if results["rates"] else 1
    figure, axes = pyplot.subplots(1, panels, figsize=(1 + 6 * panels, 5), squeeze=False)
    _draw_retrieval(axes[0][0], results)
    if results["rates"]:
        _draw_rates(axes[0][1], results)
    figure.tight_layout()
    figure.savefig(path, dpi=120, metadata={"Software": None})
    pyplot.close(figure)


def _draw_retrieval(axis: Any, results: dict[str, Any]) -> None:
    model = "tuned" if "tuned" in results["retrieval"] else "base"
    rows = _methods(results["retrieval"][model])
    for place, row in enumerate(reversed(rows.values())):
        for kind, shift, color in (("all", 0.15, "#1f5fa8"), ("flicker", -0.15, "#d08a2d")):
            if kind not in row:
                continue
            value, *interval = row[kind]["auc"]
            if interval:
                axis.plot(interval, [place + shift] * 2, color=color, lw=1.5)
            label = kind if place == len(rows) - 1 else None
            axis.plot(value, place + shift, "o", color=color, ms=4, label=label)
    axis.set_yticks(range(len(rows)), list(reversed(rows)), fontsize=8)
    axis.axvline(0.5, color="#888888", lw=0.7)
    axis.set_xlim(0, 1)
    axis.set_xlabel(f"area under the ROC curve, gradients of the {model} model")
    axis.legend(fontsize=8, title="planted clips", title_fontsize=8, loc="lower left")
    axis.grid(axis="x", alpha=0.3)


def _draw_rates(axis: Any, results: dict[str, Any]) -> None:
    colors = ("#475569", "#c2410c", "#1f5fa8", "#a3a3a3", "#15803d")
    arms = [arm for arm in _ARM_ORDER if arm in results["rates"]]
    for number, arm in enumerate(arms):
        for place, kind in enumerate(ARTIFACTS):
            values = [seed["rate"] for seed in results["rates"][arm][kind].values()]
            x = place + 0.16 * (number - (len(arms) - 1) / 2)
            color = colors[_ARM_ORDER.index(arm)]
            axis.bar(x, sum(values) / len(values), 0.14, color=color, label=None if place else arm)
            axis.plot([x] * len(values), values, "o", color="black", ms=2.5)
    axis.set_xticks(range(len(ARTIFACTS)), [_said(kind) for kind in ARTIFACTS], fontsize=8)
    axis.set_ylim(0, 1)
    axis.set_ylabel("share of videos that show it (dots: training seeds)")
    if arms:
        axis.legend(fontsize=8, title="trained on", title_fontsize=8)
    axis.grid(axis="y", alpha=0.3)
