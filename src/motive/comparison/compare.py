"""All arms of a comparison over all seeds, to one table."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from motive.comparison.arm import ArmWork, ExtraEvaluator, Scored, place_of
from motive.comparison.identity import take_up
from motive.comparison.spec import Spec
from motive.comparison.statistics import Cell, Seed, distinguishable, tabulate
from motive.runs.csv_text import write_csv
from motive.runs.progress import Progress
from motive.runs.provenance import revision, versions, write_atomically

RESULT, TABLE, PAGE = "comparison.json", "comparison.csv", "comparison.md"


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    cells: by arm and dimension. missing: dimensions without a score, and why.
    clips: of each arm's trainings, steps: optimiser steps (0: not trained).
    """

    spec: Spec
    cells: dict[str, dict[str, Cell]]
    missing: dict[str, str]
    clips: dict[str, int]
    steps: dict[str, int]

    @property
    def dimensions(self) -> list[str]:
        """In the order of the table's columns."""
        return list(dict.fromkeys(d for row in self.cells.values() for d in row))

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "format": 1,
            "spec": self.spec.model_dump(mode="json"),
            "matched": "steps" if self.spec.training.steps is not None else "repeats",
            "reference": self.spec.against,
            "interval": "95%, Student's t over training seeds; differences paired by seed",
            "arms": {
                arm: {
                    "clips": self.clips[arm],
                    "steps": self.steps[arm],
                    "dimensions": {name: asdict(cell) for name, cell in row.items()},
                }
                for arm, row in self.cells.items()
            },
            "missing": self.missing,
            "revision": revision(),
            "versions": versions(),
        }

    def as_rows(self) -> list[dict[str, Any]]:
        """One row for each arm and dimension."""
        rows = []
        for arm, row in self.cells.items():
            for dimension, cell in row.items():
                difference = cell.difference
                rows.append(
                    {
                        "arm": arm,
                        "dimension": dimension,
                        "mean": cell.score.mean,
                        "low": cell.score.low,
                        "high": cell.score.high,
                        "trainings": len(cell.score.values),
                        "difference": difference and difference.mean,
                        "difference_low": difference and difference.low,
                        "difference_high": difference and difference.high,
                        "clips": self.clips[arm],
                        "steps": self.steps[arm],
                    }
                )
        return rows

    def as_markdown(self) -> str:
        """The table for people: scores with half-widths, then differences from the reference."""
        spec, dimensions = self.spec, self.dimensions
        matched = "steps" if spec.training.steps is not None else "repeats"
        seeds = len(spec.seeds)
        lines = [
            f"{spec.model}, trained at matched {matched} with {seeds} "
            f"{'seed' if seeds == 1 else 'seeds'}, "
            f"{spec.generation.seeds} videos of each prompt. Mean ± half of the 95% interval "
            "(Student's t over training seeds).",
            "",
            _line("arm", "clips", "steps", *dimensions),
            _line("---", *["---:"] * (len(dimensions) + 2)),
        ]
        for arm, row in self.cells.items():
            shown = [_shown(row.get(d)) for d in dimensions]
            lines.append(_line(arm, str(self.clips[arm]), str(self.steps[arm]), *shown))
        lines += [
            "",
            f"Differences from {spec.against}, paired by training seed, with their 95% interval; "
            "bold where it leaves out zero.",
            "",
            _line("arm", *dimensions),
            _line("---", *["---:"] * len(dimensions)),
        ]
        for arm, row in self.cells.items():
            if arm != spec.against:
                lines.append(_line(arm, *(_difference(row.get(d)) for d in dimensions)))
        if self.missing:
            lines += ["", "Not measured:", ""]
            lines += [f"- {name}: {reason}" for name, reason in self.missing.items()]
        return "\n".join(lines) + "\n"

    def write(self, out: Path) -> None:
        """`comparison.json`, `.csv` and `.md`."""
        text = json.dumps(self.as_json(), indent=1, ensure_ascii=False, allow_nan=False)
        write_atomically(out / RESULT, text + "\n")
        rows = self.as_rows()
        write_csv(out / TABLE, list(rows[0]) if rows else ["arm"], rows)
        write_atomically(out / PAGE, self.as_markdown())


def compare(
    spec: Spec,
    out: Path,
    *,
    extra_evaluator: ExtraEvaluator | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Fine-tune, generate and evaluate every arm with every seed, and write the table to `out`.

    extra_evaluator: given an arm's folder of videos, further numbers by name. It is asked once for each
        folder; its answer is kept in `extra.json` there.

    Every arm with every seed has a folder of its own (`ARM/seed-N`; `ARM/base` for the base), and every
    step finds what was done before, so that the same call goes on after an interruption. The table is
    written after each of them with what is known by then. Seeds go round the arms, so that a broken-off
    comparison has whole rounds.

    Raises UserError for what the steps refuse, and when `out` has a comparison of something else, or one
    made from other prompts, pictures or clips.
    """
    from motive.pipeline import Run

    progress = progress or Progress(quiet=True)
    run = Run.open(spec.run, progress)
    take_up(spec, run, out)
    done: dict[str, dict[Seed, Scored]] = {name: {} for name in spec.arms}
    comparison = _result(spec, done)
    for round_ in range(len(spec.seeds)):
        for name in spec.arms:
            seeds = spec.seeds_of(name)
            if round_ >= len(seeds):
                continue
            seed = seeds[round_]
            place = place_of(seed)
            progress.say(f"{name}, {place}")
            work = ArmWork(spec, run, name, seed, out / name / place, progress)
            done[name][seed] = work.do(extra_evaluator)
            comparison = _result(spec, done)
            comparison.write(out)
    return comparison


def _result(spec: Spec, done: dict[str, dict[Seed, Scored]]) -> Comparison:
    known = {name: by_seed for name, by_seed in done.items() if by_seed}
    scores = {
        name: {seed: found.scores for seed, found in by_seed.items()}
        for name, by_seed in known.items()
    }
    every = [found for by_seed in known.values() for found in by_seed.values()]
    return Comparison(
        spec,
        tabulate(scores, spec.against),
        {name: reason for found in every for name, reason in found.missing.items()},
        {name: max(f.clips for f in by_seed.values()) for name, by_seed in known.items()},
        {name: max(f.steps for f in by_seed.values()) for name, by_seed in known.items()},
    )


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _shown(cell: Cell | None) -> str:
    if cell is None:
        return "–"
    if cell.score.high is None:
        return f"{cell.score.mean:.3f}"
    return f"{cell.score.mean:.3f} ± {cell.score.high - cell.score.mean:.3f}"


def _difference(cell: Cell | None) -> str:
    if cell is None or cell.difference is None:
        return "–"
    found = cell.difference
    if found.low is None or found.high is None:
        return f"{found.mean:+.3f}"
    text = f"{found.mean:+.3f} ({found.low:+.3f} … {found.high:+.3f})"
    return f"**{text}**" if distinguishable(found) else text
