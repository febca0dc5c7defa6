"""The page of the ablations: tables of everything in ablations.json, and the notes on them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ablation_figures import PAPER_AGREEMENT, PAPER_SPEARMAN, draw_figures

Lines = list[str]


def write_ablation_page(out: Path, results: dict[str, Any]) -> None:
    draw_figures(out, results)
    setting, moving = results["setting"], results["moving"]
    lines = [
        "# The paper's ablations, in miniature",
        "",
        "Made by `python scripts/ablations.py --out docs/results/ablations`; all numbers, by query, are in "
        "`ablations.json`.",
        "",
        f"`tiny-wan` ({results['numbers']:,} numbers in a gradient) and a MotionZoo corpus of seed "
        f"{setting['seed']}: {setting['clips']} clips of all 14 kinds with",
        f"{_words(setting['lengths'])} frames and one caption, and {setting['queries']} queries of the ten "
        f"motions. The {moving['clip']} clips and {moving['query']} queries that move",
        "are compared; what is static has no masked gradient. Intervals: 95% bootstrap over queries (and "
        "over seeds of the",
        f"projection). Where nothing else is said, features are Fastfood's {setting['dim']} numbers of the "
        "paper's objective.",
    ]
    for part in (timesteps, projections, length, magnitude, overlap, savings):
        lines += ["", *part(results)]
    notes = out / "notes.md"
    if notes.is_file():
        lines += ["", notes.read_text(encoding="utf-8").rstrip()]
    (out / "README.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def timesteps(results: dict[str, Any]) -> Lines:
    found = results["timesteps"]
    paper = found["paper"]
    rows = [
        [
            f"{row['timestep']:g}",
            between(row["with_all"]["spearman"]),
            between(row["with_others"]["spearman"]),
            between(row["with_all"]["top"]),
            between(row["precision"]),
        ]
        for row in found["single"]
    ]
    rows += [
        [
            f"**{paper['timestep']:g}**, the paper's",
            between(paper["with_all"]["spearman"]),
            "the same",
            between(paper["with_all"]["top"]),
            between(paper["precision"]),
        ],
        [
            f"{paper['timestep']:g} with another noise",
            between(paper["other_noise_with_all"]["spearman"]),
            "the same",
            between(paper["other_noise_with_all"]["top"]),
            "",
        ],
        ["all, averaged", "1", "", "1", between(found["average"]["precision"])],
    ]
    count = len(found["single"])
    return [
        f"## One timestep against {count}",
        "",
        f"Rank correlation of a single timestep's scores with those of {count} averaged as the paper",
        "averages them (unit gradients, each with a noise of its own). A timestep of the average agrees with",
        f"itself, so the average of the others stands beside it. Of the clips, the first {found['clips']}.",
        "",
        *table(
            ["timestep", "with all", "with the others", "overlap of top 10%", "precision"],
            rows,
        ),
        "",
        f"Two noises at {paper['timestep']:g} agree to {between(paper['with_other_noise']['spearman'])},",
        f"their top 10% to {between(paper['with_other_noise']['top'])}.",
        f"With {count} timesteps that all have its own noise, {paper['timestep']:g} agrees to "
        f"{between(paper['with_all_of_its_noise']['spearman'])}.",
        f"The paper's agreement is {PAPER_AGREEMENT:.2f}.",
        "",
        "![Agreement over timesteps](timesteps.png)",
    ]


def projections(results: dict[str, Any]) -> Lines:
    found, setting = results["projections"], results["setting"]
    kinds = found["kinds"]
    rows = []
    for place, dim in enumerate(setting["dims"]):
        of_kind = [{row["dim"]: row["spearman"] for row in kinds[kind]}.get(dim) for kind in kinds]
        rows.append(
            [
                str(dim),
                *(between(cell) if cell else "" for cell in of_kind),
                f"{found['predicted'][place]:.3f}",
                f"{PAPER_SPEARMAN[dim]:.3f}" if dim in PAPER_SPEARMAN else "",
            ]
        )
    sizes = "; ".join(
        f"{kind} {kinds[kind][0]['clips']} clips, {setting['projection_seeds'][kind]} seeds"
        for kind in kinds
    )
    return [
        "## A projection against the whole gradient",
        "",
        "Rank correlation of projected scores with the whole gradient's",
        f"({sizes}).",
        "*Variance*: what an unbiased projection's variance lets one expect (`ablation_agreement.py`).",
        "",
        *table(["numbers", *kinds, "variance", "the paper's"], rows),
        "",
        f"Precision by the whole gradient: {between(found['exact_precision'])}.",
        "",
        "![Rank correlation against dimension](projections.png)",
    ]


def length(results: dict[str, Any]) -> Lines:
    found = results["length"]
    lengths = list(found["clips"])
    clips = "; ".join(f"{found['clips'][f]} of {f} frames" for f in lengths)
    scores = {
        **{f"raw, {name}": row for name, row in found["raw_score"].items()},
        **{f"influence, {name}": row for name, row in found["influence"].items()},
    }
    return [
        "## Length",
        "",
        f"Rank correlation with a clip's frames ({clips}). *Raw* is the dot product of the query's unit",
        "gradient and the clip's own. The paper's loss is a mean over frames, times 1/F; a sum over frames",
        "is there for comparison.",
        "",
        *table(
            ["loss", "gradient norm with length", *(f"mean norm, {f} frames" for f in lengths)],
            [
                [name, between(row), *(f"{found['mean_norm'][name][f]:.4g}" for f in lengths)]
                for name, row in found["norm"].items()
            ],
        ),
        "",
        *table(
            ["score", "with length", "top 10% as long as the query", "precision"],
            [
                [
                    name,
                    between(row["with_length"]),
                    between(row["same_length"]),
                    between(row["precision"]),
                ]
                for name, row in scores.items()
            ],
        ),
        "",
        f"By chance {found['chance_same_length']:.0%} are as long as the query. With the factor and without "
        f"it, no influence score differs by more than {found['largest_difference']:.0e}.",
        "",
        *table(
            [
                "queries of",
                "influence with length",
                *(f"mean score of {f} frames" for f in lengths),
            ],
            [
                [
                    f"{f} frames",
                    between(row["with_length"]),
                    *(f"{row['mean_score'][g]:+.3f}" for g in lengths),
                ]
                for f, row in found["by_query_length"].items()
            ],
        ),
        "",
        "![Correlation with length](length.png)",
    ]


def magnitude(results: dict[str, Any]) -> Lines:
    found = results["magnitude"]
    measures = list(found["all"])
    rows = []
    for name, row in found["methods"].items():
        for end in ("top", "bottom"):
            rows.append(
                [
                    f"{name}, {end} 10%",
                    *(between(row[what][end]) for what in measures),
                    between(row["with_speed"]) if end == "top" else "",
                ]
            )
    rows.append(["all clips", *(f"{found['all'][what]:.3f}" for what in measures), ""])
    return [
        "## Motion of the best and the worst 10%",
        "",
        "By the votes of all queries. Speeds in pixels per frame; *moving camera* is the share of clips that "
        "one films;",
        "*with speed* the rank correlation of a query's scores with the clip's mean speed.",
        "",
        *table(["", *measures, "with speed"], rows),
        "",
        "![Motion of the best and the worst](magnitude.png)",
    ]


def overlap(results: dict[str, Any]) -> Lines:
    found = results["overlap"]
    rows = []
    for label, what in (("top_100", "top 100"), ("top_10_percent", "top 10%")):
        part = found[label]
        off = [v for i, row in enumerate(part["matrix"]) for j, v in enumerate(row) if i != j]
        rows.append(
            [
                f"{what} ({part['count']} of {found['clips']})",
                f"{part['chance']:.3f}",
                f"{sum(off) / len(off):.3f} ({min(off):.2f} … {max(off):.2f})" if off else "",
                *(between(part[k]) if k in part else "" for k in ("same_motion", "other_motion")),
            ]
        )
    return [
        "## Overlap between the motions",
        "",
        "Share of a motion's best clips, by its queries' votes, that another motion has too: the mean over "
        "pairs of motions",
        "(smallest and largest). Beside it that of two single queries, of one motion and of two.",
        "",
        *table(
            ["", "by chance", "two motions", "two queries, one motion", "two queries, two motions"],
            rows,
        ),
        "",
        "![Overlap of the top 100 between the motions](overlap.png)",
    ]


def savings(results: dict[str, Any]) -> Lines:
    found = results["savings"]
    whole = found["samplings"][0]
    by_sampling = [
        [
            row["name"],
            f"{row['latent_cells'] / whole['latent_cells']:.0%}",
            *(f"{1000 * row['seconds'][stage]:.0f}" for stage in ("track", "encode", "gradients")),
            saved(sum(row["seconds"].values()), sum(whole["seconds"].values())),
            between(row["spearman"]),
            between(row["spearman_longest"]),
            between(row["top"]),
            between(row["precision"]),
        ]
        for row in found["samplings"]
    ]
    every = found["parameters"][0]
    by_parameters = [
        [
            f"{row['name']}",
            f"`{row['parameters']}`",
            f"{row['share_of_numbers']:.0%}",
            f"{row['share_of_gradient']:.0%}",
            saved(row["seconds"]["gradients"], every["seconds"]["gradients"]),
            between(row["spearman"]),
            between(row["precision"]),
        ]
        for row in found["parameters"]
    ]
    return [
        "## Attribution for less",
        "",
        f"Rank correlation with the whole gradients of whole clips, over {whole['clips']} clips.",
        f"Milliseconds of a processor and *cells* of the latent are of a clip of {whole['longest']} frames,",
        "alone. The first row differs from its reference by the projection alone.",
        "",
        *table(
            [
                "clips",
                "cells",
                "track",
                "encode",
                "gradients",
                "time saved",
                "rank correlation",
                f"of the {whole['longest_clips']} longest",
                "top 10%",
                "precision",
            ],
            by_sampling,
        ),
        "",
        "![Rank correlation and precision against time](savings.png)",
        "",
        "Some parameters only, with their whole gradients. *Gradient*: their share of its squared length.",
        "",
        *table(
            [
                "parameters",
                "`--parameters`",
                "numbers",
                "gradient",
                "time saved",
                "rank correlation",
                "precision",
            ],
            by_parameters,
        ),
        "",
        "![Rank correlation and precision by parameters](parameters.png)",
    ]


def saved(seconds: float, of: float) -> str:
    return f"{1 - seconds / of:+.0%}"


def between(found: dict[str, Any]) -> str:
    return f"{found['mean']:.3f} ({found['low']:.2f} … {found['high']:.2f})"


def table(heads: list[str], rows: Iterable[list[str]]) -> Lines:
    return [
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _words(lengths: list[int]) -> str:
    return ", ".join(map(str, lengths[:-1])) + f" or {lengths[-1]}"
