"""How often the 95% intervals of a study hold the truth, when annotators and videos differ.

    python benchmarks/study_coverage.py [--simulations 1000] [--seed 0] [--json FILE]

In each simulated study annotators see videos; every annotator and every video has a preference of its
own (normal, on the scale of log odds), each answer has logistic noise, and is a tie within 0.35 of 0. The
truth is the share over all annotators and videos that there could be, by Gauss-Hermite quadrature. For
win, tie, loss and preference (wins and half the ties) it is counted how often the truth lies within:
`ours`, the interval that `motive study report` gives; `bootstrap`, the percentile interval of the two-way
cluster bootstrap (preference only); `independent`, Wilson's as if all judgements were independent. Of
1,000 simulations one deviation of chance is 0.7 points. `width` is the mean width of the preference's
interval in points.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from motive.study.clustered import pigeonhole_interval, share_of

TIES = 0.35
Z = 1.959964
_NODES = 80
_DRAWS = 500


@dataclass(frozen=True)
class Simulated:
    """A design: per_pair of the annotators judge each video; deviations by annotator and by video."""

    name: str
    annotators: int
    videos: int
    per_pair: int
    by_annotator: float
    by_video: float
    shift: float

    def truth(self) -> np.ndarray:
        """Shares of win, tie, loss, and preference."""
        deviation = np.hypot(self.by_annotator, self.by_video)
        nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
        weights = weights / weights.sum()
        win = float((weights / (1 + np.exp(TIES - self.shift - deviation * nodes))).sum())
        loss = float((weights / (1 + np.exp(TIES + self.shift + deviation * nodes))).sum())
        tie = 1 - win - loss
        return np.array([win, tie, loss, win + tie / 2])

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Values, annotators and videos of one study."""
        person = rng.normal(0, self.by_annotator, self.annotators)[:, None]
        video = rng.normal(0, self.by_video, self.videos)[None]
        latent = self.shift + person + video + rng.logistic(size=(self.annotators, self.videos))
        values = np.where(latent > TIES, 1.0, np.where(latent < -TIES, 0.0, 0.5))
        annotators, videos = np.nonzero(self._judged(rng))
        return values[annotators, videos], annotators, videos

    def _judged(self, rng: np.random.Generator) -> np.ndarray:
        """Who judges what: stretches of a circle on which the videos stand, as in `study.plan`."""
        judged = np.zeros((self.annotators, self.videos), bool)
        circle, total = rng.permutation(self.videos), self.videos * self.per_pair
        for k in range(self.annotators):
            low, high = (total * j // self.annotators for j in (k, k + 1))
            judged[k, circle[np.arange(low, high) % self.videos]] = True
        return judged


DESIGNS = (
    Simulated("the paper's: 17 × 50, all by all", 17, 50, 17, 0.6, 0.8, 1.2),
    Simulated("the same, arms alike", 17, 50, 17, 0.6, 0.8, 0.0),
    Simulated("the same, strong clusters", 17, 50, 17, 1.2, 1.2, 0.5),
    Simulated("the same, no clusters", 17, 50, 17, 0.0, 0.0, 0.5),
    Simulated("12 × 60, four a pair", 12, 60, 4, 0.6, 0.8, 0.5),
    Simulated("30 × 200, three a pair", 30, 200, 3, 0.5, 0.8, 0.3),
    Simulated("40 × 100, ten a pair", 40, 100, 10, 0.6, 0.8, 0.3),
    Simulated("10 × 30, all by all", 10, 30, 10, 0.5, 0.5, 0.5),
    Simulated("6 × 20, all by all", 6, 20, 6, 0.5, 0.8, 0.5),
    Simulated("3 × 20, all by all", 3, 20, 3, 0.5, 0.8, 0.5),
)


def coverage(design: Simulated, simulations: int, seed: int) -> dict[str, object]:
    rng = np.random.default_rng(seed)
    truth = design.truth()
    ours, alone, bootstrap, widths = np.zeros(4), np.zeros(4), 0, []
    for _ in range(simulations):
        values, annotators, videos = design.draw(rng)
        columns = [(values == 1) * 1.0, (values == 0.5) * 1.0, (values == 0) * 1.0, values]
        for k, column in enumerate(columns):
            share = share_of(column, annotators, videos)
            ours[k] += share.low <= truth[k] <= share.high
            alone[k] += _independent(column, truth[k])
        widths.append(share.high - share.low)
        low, high = pigeonhole_interval(values, annotators, videos, draws=_DRAWS)
        bootstrap += low <= truth[3] <= high
    percent = 100 / simulations
    names = ("win", "tie", "loss", "preference")
    return {
        "design": design.name,
        "truth": dict(zip(names, truth.round(4).tolist(), strict=True)),
        "ours": dict(zip(names, (percent * ours).round(2).tolist(), strict=True)),
        "bootstrap": round(percent * bootstrap, 2),
        "independent": dict(zip(names, (percent * alone).round(2).tolist(), strict=True)),
        "width": round(100 * float(np.mean(widths)), 2),
    }


def _independent(values: np.ndarray, truth: float) -> bool:
    count, mean = len(values), values.mean()
    variance = max(values.var(), 1e-12)
    effective = mean * (1 - mean) / variance * count if 0 < mean < 1 else count
    centre = (mean + Z * Z / (2 * effective)) / (1 + Z * Z / effective)
    spread = mean * (1 - mean) / effective + Z * Z / (4 * effective**2)
    return bool(abs(truth - centre) <= Z / (1 + Z * Z / effective) * spread**0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    print(
        "| design (annotators × videos) | win | tie | loss | preference | bootstrap | independent |"
    )
    print("|---|---|---|---|---|---|---|", flush=True)
    for design in DESIGNS:
        row = coverage(design, options.simulations, options.seed)
        rows.append(row)
        cells = [f"{value:.1f}" for value in row["ours"].values()]  # type: ignore[attr-defined]
        cells += [f"{row['bootstrap']:.1f}", f"{row['independent']['preference']:.1f}"]  # type: ignore[index]
        print(f"| {design.name} | {' | '.join(cells)} |", flush=True)
    if options.json:
        content = {"simulations": options.simulations, "seed": options.seed, "results": rows}
        options.json.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
