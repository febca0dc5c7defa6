"""The figures of the ablations; their data are in ablations.json."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

# What the paper reports: rank correlation by dimension, agreement of t = 751 with ten, mean overlap.
PAPER_SPEARMAN = {128: 0.469, 512: 0.747, 1024: 0.757, 2048: 0.761}
PAPER_AGREEMENT = 0.66
PAPER_OVERLAP = 0.24

BLUE, ORANGE, GREEN, RED, GREY = "#1f5fa8", "#d08a2d", "#2b8a4b", "#b03030", "#777777"


def draw_figures(out: Path, results: dict[str, Any]) -> None:
    draw_timesteps(out / "timesteps.png", results["timesteps"])
    draw_projections(out / "projections.png", results)
    draw_length(out / "length.png", results["length"])
    draw_magnitude(out / "magnitude.png", results["magnitude"])
    draw_overlap(out / "overlap.png", results["overlap"])
    draw_savings(out / "savings.png", results["savings"]["samplings"])
    draw_parameters(out / "parameters.png", results["savings"]["parameters"])


@contextmanager
def _figure(path: Path, columns: int, size: tuple[float, float], **options: Any) -> Iterator[Any]:
    """Axes beside each other, saved when done."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, columns, figsize=size, squeeze=False, **options)
    yield axes[0]
    figure.tight_layout()
    figure.savefig(path, dpi=130, metadata={"Software": None})
    plt.close(figure)


def _line(axis: Any, x: list[float], found: list[dict[str, Any]], color: str, **how: Any) -> None:
    """Means with their intervals."""
    mean = [row["mean"] for row in found]
    axis.fill_between(
        x, [r["low"] for r in found], [r["high"] for r in found], color=color, alpha=0.15, lw=0
    )
    axis.plot(x, mean, "o-", color=color, ms=4, lw=1.4, **how)


def draw_timesteps(path: Path, found: dict[str, Any]) -> None:
    """Agreement of each timestep with the average, the paper's marked."""
    single, paper = found["single"], found["paper"]
    x = [row["timestep"] for row in single]
    titles = {"spearman": "rank correlation", "top": "overlap of the top 10%"}
    with _figure(path, 3, (12, 3.7)) as axes:
        for axis, (measure, title) in zip(axes, titles.items(), strict=False):
            for with_whom, color, label in (
                ("with_all", BLUE, f"with the average of all {len(x)}"),
                ("with_others", ORANGE, "with the average of the others"),
            ):
                _line(axis, x, [row[with_whom][measure] for row in single], color, label=label)
            _mark(axis, paper["timestep"], paper["with_all"][measure], "the paper's timestep")
            _mark(
                axis,
                paper["timestep"],
                paper["with_all_of_its_noise"][measure],
                "the same, all with one noise",
                color=GREEN,
            )
            axis.set_title(title, fontsize=10)
            axis.set_ylim(0, 1)
        axes[0].axhline(PAPER_AGREEMENT, color=GREY, ls=":", lw=1.2, label="66%, in the paper")
        axes[1].legend(*axes[0].get_legend_handles_labels(), fontsize=7.5, loc="lower center")
        _line(axes[2], x, [row["precision"] for row in single], BLUE, label="one timestep")
        _mark(axes[2], paper["timestep"], paper["precision"], "the paper's timestep")
        average = found["average"]["precision"]
        axes[2].axhspan(average["low"], average["high"], color=GREEN, alpha=0.12, lw=0)
        axes[2].axhline(average["mean"], color=GREEN, lw=1.2, label="average of all")
        axes[2].set_ylim(0, max(0.5, 1.5 * average["high"]))
        axes[2].set_title("precision of the top 10%", fontsize=10)
        axes[2].legend(fontsize=7.5, loc="upper left")
        for axis in axes:
            axis.set_xlabel("timestep")


def _mark(axis: Any, x: float, found: dict[str, Any], label: str, color: str = RED) -> None:
    error = [[found["mean"] - found["low"]], [found["high"] - found["mean"]]]
    axis.errorbar(
        [x], [found["mean"]], yerr=error, fmt="D", color=color, ms=6, lw=1.4, label=label, zorder=5
    )


def draw_projections(path: Path, results: dict[str, Any]) -> None:
    """Rank correlation with the whole gradient against dimension, for each projection."""
    found, dims = results["projections"], results["setting"]["dims"]
    colors = dict(zip(found["kinds"], (BLUE, GREEN, ORANGE, RED), strict=False))
    with _figure(path, 2, (10, 4), sharey=True) as axes:
        for kind, rows in found["kinds"].items():
            x = [row["dim"] for row in rows]
            _line(axes[0], x, [row["spearman"] for row in rows], colors[kind], label=kind)
            _line(axes[1], x, [row["top"] for row in rows], colors[kind], label=kind)
        axes[0].plot(dims, found["predicted"], "--", color="black", lw=1.2, label="by the variance")
        axes[0].plot(
            *zip(*PAPER_SPEARMAN.items(), strict=True), "s:", color=GREY, ms=5, label="in the paper"
        )
        axes[0].set_ylabel("rank correlation with the whole gradient")
        axes[1].set_ylabel("overlap of the top 10%")
        axes[1].tick_params(labelleft=True)
        axes[0].legend(fontsize=8, loc="lower right")
        for axis in axes:
            axis.set_xscale("log", base=2)
            axis.set_xticks(dims, [str(d) for d in dims])
            axis.set_xlabel("numbers of the projected gradient")
            axis.set_ylim(0, 1.02)
            axis.grid(alpha=0.25)


def draw_length(path: Path, found: dict[str, Any]) -> None:
    """Rank correlation with length of norms, raw scores and influence; mean score by both lengths."""
    rows = [
        *((f"norm, {name}", row, GREY) for name, row in found["norm"].items()),
        *((f"raw score, {n}", row["with_length"], ORANGE) for n, row in found["raw_score"].items()),
        *(
            ("influence, " + name.replace(", ", ",\n"), row["with_length"], BLUE)
            for name, row in found["influence"].items()
        ),
    ]
    by_query = found["by_query_length"]
    with _figure(path, 2, (12, 4.4), gridspec_kw={"width_ratios": [1.7, 1]}) as axes:
        for place, (_, row, color) in enumerate(reversed(rows)):
            axes[0].plot([row["low"], row["high"]], [place, place], color=color, lw=2)
            axes[0].plot(row["mean"], place, "o", color=color, ms=6)
        axes[0].set_yticks(range(len(rows)), [name for name, _, _ in reversed(rows)], fontsize=8.5)
        axes[0].axvline(0, color="black", lw=0.7)
        axes[0].axvline(0.78, color=RED, ls=":", lw=1.2)
        axes[0].set_xlim(-1.05, 1.05)
        axes[0].set_title(
            "rank correlation with the clip's frames (dotted: the paper's 78%)", fontsize=10
        )
        axes[0].grid(axis="x", alpha=0.25)
        for (length, row), color in zip(by_query.items(), (BLUE, GREEN, ORANGE), strict=False):
            x = [int(f) for f in row["mean_score"]]
            axes[1].plot(x, list(row["mean_score"].values()), "o-", color=color, label=length)
        axes[1].set_xticks(x)
        axes[1].set_xlabel("frames of the clip")
        axes[1].set_title("mean influence on queries of … frames", fontsize=10)
        axes[1].set_ylim(top=1.35 * max(max(r["mean_score"].values()) for r in by_query.values()))
        axes[1].legend(fontsize=8, loc="upper center", ncols=3)
        axes[1].grid(alpha=0.25)


def draw_magnitude(path: Path, found: dict[str, Any]) -> None:
    """Motion of the best and the worst 10% of each method, all clips dashed."""
    measures = {
        "mean speed": "mean speed, px per frame",
        "mean speed, still camera": "mean speed, still cameras only",
        "speed of objects": "speed of objects, px per frame",
    }
    methods = list(found["methods"])
    with _figure(path, 3, (13.5, 3.6)) as axes:
        for axis, (what, title) in zip(axes, measures.items(), strict=True):
            for end, shift, color in (("top", -0.18, BLUE), ("bottom", 0.18, ORANGE)):
                cells = [found["methods"][name][what][end] for name in methods]
                x = np.arange(len(methods)) + shift
                means = np.array([c["mean"] for c in cells])
                # A percentile interval need not hold the mean: clipped to be drawn.
                error = np.maximum(
                    0, [means - [c["low"] for c in cells], [c["high"] for c in cells] - means]
                )
                axis.bar(x, means, 0.34, yerr=error, color=color, label=f"{end} 10%", capsize=3)
            axis.axhline(found["all"][what], color="black", ls="--", lw=1, label="all clips")
            axis.set_xticks(
                range(len(methods)),
                [
                    m.replace(" the mask", "\nthe mask").replace(" magnitude", "\nmagnitude")
                    for m in methods
                ],
            )
            axis.set_title(title, fontsize=10)
        axes[0].legend(fontsize=8, loc="upper left")


def draw_overlap(path: Path, found: dict[str, Any]) -> None:
    """Heat maps of the overlaps between the motions, with what is expected by chance."""
    names = [name.replace("_", " ") for name in found["motions"]]
    with _figure(path, 2, (13.5, 6.2)) as axes:
        for axis, label in zip(axes, ("top_100", "top_10_percent"), strict=True):
            part = found[label]
            shares = np.array(part["matrix"])
            image = axis.imshow(shares, cmap="viridis", vmin=0, vmax=1)
            for i, row in enumerate(shares):
                for j, share in enumerate(row):
                    color = "white" if share < 0.6 else "black"
                    axis.text(
                        j,
                        i,
                        f"{100 * share:.0f}",
                        ha="center",
                        va="center",
                        color=color,
                        fontsize=8,
                    )
            axis.set_xticks(range(len(names)), names, rotation=45, ha="right")
            axis.set_yticks(range(len(names)), names)
            off = shares[~np.eye(len(names), dtype=bool)]
            axis.set_title(
                f"best {part['count']} of {found['clips']}: mean {off.mean():.0%}, "
                f"by chance {part['chance']:.0%}",
                fontsize=11,
            )
            bar = axis.figure.colorbar(image, ax=axis, fraction=0.046, pad=0.03)
            bar.ax.axhline(part["chance"], color="red", lw=2)
            bar.set_label("share in common (red: by chance)")


def draw_savings(path: Path, rows: list[dict[str, Any]]) -> None:
    """Rank correlation and precision of smaller or shorter clips, against the time that is left."""
    seconds = [sum(row["seconds"].values()) for row in rows]
    titles = {
        "spearman": "rank correlation, all clips",
        "spearman_longest": f"rank correlation, clips of {rows[0]['longest']} frames",
        "precision": "precision of the top 10%",
    }
    with _figure(path, 3, (13.5, 4.4)) as axes:
        for axis, (measure, title) in zip(axes, titles.items(), strict=True):
            for place, (row, cost) in enumerate(zip(rows, seconds, strict=True)):
                cell, x, color = row[measure], cost / seconds[0], f"C{place}"
                axis.plot([x, x], [cell["low"], cell["high"]], color=color, lw=1.4)
                axis.plot(x, cell["mean"], "osD^v"[place % 5], color=color, ms=7, label=row["name"])
            axis.set_title(title, fontsize=10)
            axis.set_xlabel("time of tracking, encoding and gradients")
            axis.set_xlim(0, 1.1)
            axis.set_ylim(0, 1.03 if measure != "precision" else 0.75)
            axis.grid(alpha=0.25)
        axes[2].legend(fontsize=8, loc="upper left")


def draw_parameters(path: Path, rows: list[dict[str, Any]]) -> None:
    """Rank correlation with the whole gradient, and precision, of some parameters alone."""
    whole = rows[0]
    titles = {
        "spearman": "rank correlation with the whole gradient",
        "precision": "precision of the top 10%",
    }
    names = [
        f"{row['name']} ({1 - row['seconds']['gradients'] / whole['seconds']['gradients']:.0%})"
        for row in rows[1:]
    ]
    with _figure(path, 2, (11, 5.2), sharey=True) as axes:
        for axis, (measure, title) in zip(axes, titles.items(), strict=True):
            for place, row in enumerate(reversed(rows[1:])):
                cell = row[measure]
                color = BLUE if row["name"].startswith("block ") else ORANGE
                axis.plot([cell["low"], cell["high"]], [place, place], color=color, lw=2)
                axis.plot(cell["mean"], place, "o", color=color, ms=6)
            axis.set_title(title, fontsize=10)
            axis.grid(axis="x", alpha=0.25)
        axes[1].axvline(whole["precision"]["mean"], color=GREY, ls="--", lw=1.2, label="everything")
        axes[1].legend(fontsize=8, loc="upper left")
        axes[0].set_yticks(range(len(names)), names[::-1], fontsize=8.5)
        axes[0].set_ylabel("differentiated (time of gradients that is saved)", labelpad=12)
