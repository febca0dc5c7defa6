"""Does `motive diagnose` find the clips that teach an artifact, and does dropping them cure the model?

    python scripts/artifacts.py --out docs/results/artifacts --work runs/artifacts

A corpus of rendered clips of which one in twenty is bad: an object that leaps, a flicker, a fall upwards, a
motion that stands still for a while. `tiny-wan` is fine-tuned on all of it, and makes videos; those in
which a plain detector (`artifact_detectors.py`) sees an artifact are the unwanted queries. Are the planted
clips at the top of the ranking? A second line of queries, rendered clips with the same artifacts that
nothing was trained on, tells a poor query from an attribution that fails. Then the model is trained again,
at equal steps, without the clips that were found, without as many random ones, and without the planted
ones, and the artifacts in its videos are counted.

An interrupted study goes on where it was, and writes what there is after each training seed. --quick is a
version of a minute that shows that it runs; its numbers mean nothing.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from artifact_corpus import CORPUS_SEED, FRAMES, FULL, QUICK, Corpus, Size, read_rows
from artifact_detectors import Detectors, fix_detectors, measures, through_vae
from artifact_page import write_artifact_page
from artifact_retrieval import judge_retrieval

from motive import Run
from motive.clips.decoding import decode_clip
from motive.clips.sampling import FrameSampler
from motive.diagnosis import diagnose
from motive.finetuning import FinetuneSettings, finetune
from motive.generation import generate
from motive.runs.csv_text import csv_text
from motive.runs.progress import Progress
from motive.runs.provenance import write_atomically
from motive.zoo.artifacts import ARTIFACTS, HOSTS, faulty_clip
from motive.zoo.captions import caption_of
from motive.zoo.scene import draw_scene, render_frames

OWN_SEED, PROMPT_SEED, CALIBRATION_SEED, TEST_SEED = range(83, 87)  # scenes that are nowhere else
ARMS = ("all", "found removed", "random removed", "planted removed")
QUERY_COLUMNS = ("file_name", "caption", "artifact", "origin", "polarity")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="for the results")
    parser.add_argument("--work", type=Path, required=True, help="for everything on the way")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else FULL
    arguments.out.mkdir(parents=True, exist_ok=True)
    Study(arguments.work, size, Progress()).do(arguments.out)


class Study:
    """The whole of it, in `work`."""

    def __init__(self, work: Path, size: Size, progress: Progress) -> None:
        self.work, self.size, self.progress = work.absolute(), size, progress
        self.corpus = Corpus(self.work, size, progress)

    def do(self, out: Path) -> None:
        """Everything; results are in `out` as soon as there are some."""
        rendered = self.corpus.rendered_queries()
        run = self.corpus.run("run", rendered)
        results: dict[str, Any] = {"setting": asdict(self.size), "retrieval": {}, "rates": {}}
        results["retrieval"]["base"] = self.retrieval(run, rendered)
        write_artifact_page(out, results)
        self.detectors = self.fixed_detectors()
        results["detectors"] = asdict(self.detectors)
        tuned = self.tuned(run, "all", 0)
        results["own_queries"] = own = self.own_queries(tuned)
        queries = self.all_queries(own)
        runs = {
            "base": self.corpus.run("run", queries),
            "tuned": self.corpus.run("run-tuned", queries, finetuned__checkpoint=str(tuned)),
        }
        for name, attributed in runs.items():
            results["retrieval"][name] = self.retrieval(attributed, queries)
        results["dropped"] = dropped = self.dropped(runs["tuned"], own)
        write_artifact_page(out, results)
        shown = {"base": {"base": self.videos("tiny-wan", "base")}}
        for seed in self.size.seeds:
            for arm in ARMS:
                checkpoint = self.tuned(run, arm, seed, dropped["clips"])
                found = self.videos(str(checkpoint), f"{arm}-{seed}")
                shown.setdefault(arm, {})[str(seed)] = found
                results["rates"] = self.rates(shown)
                write_artifact_page(out, results)
        self.draw_examples(out, results)
        write_artifact_page(out, results)  # which shows them

    # Queries.

    def own_queries(self, tuned: Path) -> dict[str, Any]:
        """The tuned model's own videos in which an artifact of their prompt's motion is seen most."""
        prompts = self.prompts(OWN_SEED, self.size.own)
        seen = self.measured(str(tuned), self.work / "own", prompts)
        chosen: dict[str, Any] = {}
        for artifact in ARTIFACTS:
            mine = [entry for entry in seen if entry["kind"] == artifact]
            showing = [e for e in mine if self.detectors.sees(artifact, e["measures"])]
            showing.sort(key=lambda entry: -entry["measures"][artifact])
            chosen[artifact] = {
                "made": len(mine),
                "showing": len(showing),
                "files": [e["file_name"] for e in showing[: self.size.queries]],
            }
        return chosen

    def all_queries(self, own: dict[str, Any]) -> Path:
        """Rendered queries and the model's own in one dataset, each unwanted."""
        folder = self.work / "all-queries"
        folder.mkdir(exist_ok=True)
        rows = []
        captions = {e["file_name"]: e["prompt"] for e in _listed(self.work / "own")}
        for row in read_rows(self.corpus.rendered_queries()):
            rows.append(
                self._query(folder, self.work / "queries" / row["file_name"], row, "rendered")
            )
        for artifact, found in own.items():
            for name in found["files"]:
                row = {"caption": captions[name], "artifact": artifact}
                rows.append(self._query(folder, self.work / "own" / name, row, "own"))
        table = folder / "metadata.csv"
        write_atomically(table, csv_text(QUERY_COLUMNS, rows))
        return table

    @staticmethod
    def _query(folder: Path, video: Path, row: dict[str, str], origin: str) -> dict[str, str]:
        name = f"{origin}-{video.name}"
        if not (folder / name).is_file():
            shutil.copyfile(video, folder / name)
        return {
            "file_name": name,
            "caption": row["caption"],
            "artifact": row["artifact"],
            "origin": origin,
            "polarity": "unwanted",
        }

    @staticmethod
    def query_labels(table: Path) -> dict[str, tuple[str, str]]:
        """Origin and artifact of every query, by file name."""
        rows = read_rows(table)
        return {r["file_name"]: (r.get("origin", "rendered"), r["artifact"]) for r in rows}

    def retrieval(self, run: Run, queries: Path) -> dict[str, Any]:
        """Where each method puts the planted clips."""
        labels = self.query_labels(queries)
        return judge_retrieval(run, self.corpus.planted(), labels, resamples=self.size.resamples)

    # Detectors.

    def fixed_detectors(self) -> Detectors:
        file = self.work / "detectors.json"
        if not file.is_file():
            sets = [self._labelled(seed) for seed in (CALIBRATION_SEED, TEST_SEED)]
            write_atomically(file, json.dumps(asdict(fix_detectors(*sets))) + "\n")
        return Detectors(**json.loads(file.read_text(encoding="utf-8")))

    def _labelled(self, seed: int) -> list[tuple[str, str, dict[str, float]]]:
        """Measures of rendered clips of known truth, as the model's VAE leaves them."""
        good, bad = self.size.calibration
        wanted = [("", kind) for kind in good] + [(a, HOSTS[a]) for a in ARTIFACTS] * bad
        found = []
        with self.progress.stage("detectors", len(wanted)) as advance:
            for index, (artifact, kind) in enumerate(wanted):
                if artifact:
                    frames = faulty_clip(artifact, FRAMES, seed=seed, index=index).frames()
                else:
                    frames = render_frames(draw_scene(kind, FRAMES, seed=seed, index=index))
                found.append((artifact, kind, measures(through_vae(frames))))
                advance(f"{kind} {artifact}")
        return found

    # Training and making videos.

    def tuned(self, run: Run, arm: str, seed: int, found: Sequence[str] = ()) -> Path:
        """The model fine-tuned on the corpus, or what an arm leaves of it."""
        out, subset = self.work / "models" / f"{arm.split()[0]}-{seed}", "all"
        if arm != "all":
            kept = self.work / f"kept-{arm.split()[0]}-{seed}.txt"
            removed = set(self._removed(arm, seed, found))
            names = [name for name in self.corpus.planted() if name not in removed]
            write_atomically(kept, "\n".join(names) + "\n")
            subset = str(kept)
        size = self.size
        settings = FinetuneSettings(
            steps=size.steps,
            batch=size.batch,
            lr=size.lr,
            seed=seed,
            threads=1,
            checkpoint_every=50,
        )
        return finetune(run, subset, "tiny-wan", out, settings, self.progress)

    def _removed(self, arm: str, seed: int, found: Sequence[str]) -> list[str]:
        names = list(self.corpus.planted())
        if arm == "found removed":
            return list(found)
        if arm == "random removed":
            rng = np.random.default_rng([CORPUS_SEED, 10, seed])
            return [names[i] for i in rng.choice(len(names), len(found), replace=False)]
        return [name for name, (artifact, _) in self.corpus.planted().items() if artifact]

    def dropped(self, run: Run, own: dict[str, Any]) -> dict[str, Any]:
        """What `motive diagnose` puts first for each artifact's queries, as many as were planted of it.

        Of the model's own queries; only where none shows any artifact, of the rendered ones.
        """
        origin = "own" if any(found["files"] for found in own.values()) else "rendered"
        run.curate(report=False)
        queries = run.features("query")
        scored = {
            m.file_name for m, s in zip(queries.members, queries.static, strict=True) if not s
        }
        labels = self.query_labels(self.work / "all-queries" / "metadata.csv")
        faults, clips, kinds = self.corpus.planted(), dict[str, str](), {}
        for artifact, count in self.size.planted.items():
            names = [
                n for n, label in labels.items() if label == (origin, artifact) and n in scored
            ]
            if not names:
                continue
            first = [s.file_name for s in diagnose(run, names).suspects[:count]]
            hits = sum(faults[name][0] == artifact for name in first)
            kinds[artifact] = {"queries": len(names), "dropped": count, "hits": hits}
            clips |= dict.fromkeys(first, artifact)
        return {"origin": origin, "clips": list(clips), "kinds": kinds}

    def prompts(self, seed: int, count: int) -> dict[str, str]:
        """The artifact that might be seen, by prompt: captions of its motion, of scenes rendered nowhere."""
        found: dict[str, str] = {}
        for artifact in ARTIFACTS:
            index = 1000 * ARTIFACTS.index(artifact)
            while sum(kind == artifact for kind in found.values()) < count:
                scene = draw_scene(HOSTS[artifact], FRAMES, seed=seed, index=index, camera="none")
                found.setdefault(caption_of(scene), artifact)
                index += 1
        return found

    def videos(self, model: str, name: str) -> list[dict[str, Any]]:
        """Measures of a model's videos of the prompts that are counted."""
        prompts = self.prompts(PROMPT_SEED, self.size.prompts)
        return self.measured(model, self.work / "videos" / name.replace(" ", "-"), prompts)

    def measured(self, model: str, out: Path, prompts: dict[str, str]) -> list[dict[str, Any]]:
        generate(
            model,
            list(prompts),
            out,
            seeds=1,
            steps=self.size.sampling_steps,
            guidance=self.size.guidance,
            frames=FRAMES,
            threads=1,
            progress=self.progress,
        )
        return [
            {
                "file_name": entry["file_name"],
                "kind": prompts[entry["prompt"]],
                "measures": measures(decode(out / entry["file_name"])),
            }
            for entry in _listed(out)
            if entry["prompt"] in prompts
        ]

    def rates(self, shown: dict[str, dict[str, list[dict[str, Any]]]]) -> dict[str, Any]:
        """By arm, artifact and training seed: the share of the motion's videos in which it is seen, and
        the mean of its measure."""
        return {
            arm: {
                artifact: {
                    seed: self._rate(artifact, [e for e in videos if e["kind"] == artifact])
                    for seed, videos in by_seed.items()
                }
                for artifact in ARTIFACTS
            }
            for arm, by_seed in shown.items()
        }

    def _rate(self, artifact: str, videos: list[dict[str, Any]]) -> dict[str, float]:
        seen = [self.detectors.sees(artifact, entry["measures"]) for entry in videos]
        return {
            "rate": float(np.mean(seen)),
            "mean": float(np.mean([entry["measures"][artifact] for entry in videos])),
        }

    def draw_examples(self, out: Path, results: dict[str, Any]) -> None:
        """A planted clip of each kind, and what the base and the tuned models make of one prompt each."""
        import cv2

        lines = []
        for artifact in ARTIFACTS:
            clip = next(name for name, (a, _) in self.corpus.planted().items() if a == artifact)
            prompt = next(
                p for p, a in self.prompts(PROMPT_SEED, self.size.prompts).items() if a == artifact
            )
            first = self.size.seeds[0]
            rows = [decode(self.work / "clips" / clip)]
            rows += [
                decode(self.work / "videos" / name / f"{prompt}-0.mp4")
                for name in ("base", f"all-{first}", f"planted-removed-{first}")
            ]
            own = results["own_queries"][artifact]["files"]
            if own:
                rows.insert(1, decode(self.work / "own" / own[0]))
            lines += [np.concatenate(list(frames[::2]), 1) for frames in rows]
            lines.append(np.full((4, lines[-1].shape[1], 3), 255, np.uint8))
        cv2.imwrite(str(out / "examples.png"), np.concatenate(lines)[..., ::-1])


def decode(path: Path) -> np.ndarray:
    """`(F, 64, 64, 3)` uint8."""
    return decode_clip(path, FrameSampler(FRAMES, 64, 64)).frames_fhw3


def _listed(videos: Path) -> list[dict[str, Any]]:
    content = json.loads((videos / "generation.json").read_text(encoding="utf-8"))
    return list(content["videos"])


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    main()
