"""A folder of videos through the dimensions, video by video, going on where it was."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from motive.errors import ClipError, UserError
from motive.evaluation import prompt_lists, static_filter
from motive.evaluation.cache import ResultCache, key_of, score_key
from motive.evaluation.catalog import WITH_NETWORK, find_dimensions
from motive.evaluation.dimension import Dimension, Measure, VideoScore
from motive.evaluation.networks.choice import MissingNetworkError, Networks
from motive.evaluation.official import OfficialResult, OfficialVBench
from motive.evaluation.result import DimensionResult, Evaluation, Failure, Missing
from motive.evaluation.video import read_video, video_digest
from motive.runs.progress import Progress

# Named, so that none is overlooked in silence. VBench reads .mp4 in all of these dimensions.
_OTHER_VIDEOS = (".avi", ".gif", ".m4v", ".mkv", ".mov", ".webm")

# No dimension of its own, but scored and kept like one.
_STATIC = Dimension("static_filter", "", "1 is static, 0 is not", "", static_filter.static_filter)
_FLICKERING = "temporal_flickering"


def evaluate(
    folder: str | Path,
    dimensions: list[str] | None = None,
    *,
    out: str | Path | None = None,
    networks: Networks | None = None,
    vbench_python: str | Path | None = None,
    lists: str | Path | None = None,
    only_static: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure the `.mp4` files of `folder`, which is not searched below.

    dimensions: names of `catalog.DIMENSIONS`; None is all of them.
    out: a JSON file for the result. Each video's scores are kept beside it in `OUT.cache.jsonl`, so
        that the same call goes on after an interruption and measures only what is new.
    networks: where the networks are.
    vbench_python: the interpreter of an environment with the official VBench, which then computes all
        of its own dimensions.
    lists: VBench's prompt lists (`prompt_lists.read_prompt_lists`): each dimension is asked of its own
        prompts' five videos. None asks every dimension of every video.
    only_static: ask temporal_flickering only of the videos that VBench's static filter passes, the
        first five of each prompt, as its leaderboard does.

    A video that cannot be read, or is too short for a dimension, is in `failures`; a dimension whose
    network is not there is in `missing`.

    Raises UserError for a folder without videos, a dimension that is not known, and damaged or wrong
    files of networks.
    """
    folder, networks = Path(folder), networks or Networks()
    chosen = find_dimensions(dimensions)
    for name in networks.plugins:
        if name not in WITH_NETWORK:
            raise UserError(
                f"there is no network to plug in for '{name}': use {', '.join(WITH_NETWORK)}"
            )
    official = OfficialVBench(Path(vbench_python), networks) if vbench_python else None
    prompts = prompt_lists.read_prompt_lists(Path(lists)) if lists else None
    videos, failures = _list_videos(folder)
    target = None if out is None else Path(out)
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
    cache = ResultCache(target and target.with_name(f"{target.name}.cache.jsonl"))
    try:
        work = _Work(chosen, networks, official, prompts, only_static, cache, failures)
        evaluation = work.evaluate(folder, videos, progress or Progress(quiet=True))
    finally:
        cache.close()
    if target is not None:
        evaluation.write(target)
    return evaluation


@dataclass
class _Readable:
    """A video that can be read, and what was found of it."""

    path: Path
    digest: str
    scores: dict[str, VideoScore]


class _Work:
    """The dimensions that are asked for, with their networks loaded."""

    def __init__(
        self,
        dimensions: list[Dimension],
        networks: Networks,
        official: OfficialVBench | None,
        lists: Mapping[str, list[str]] | None,
        only_static: bool,
        cache: ResultCache,
        failures: list[Failure],
    ) -> None:
        self._dimensions, self._lists, self._cache = dimensions, lists, cache
        self._official, self._failures = official, failures
        self._missing: dict[str, Missing] = {}
        self._measures: dict[str, tuple[Dimension, Measure]] = {}
        self._only_static = only_static and any(d.name == _FLICKERING for d in dimensions)
        own = [d for d in dimensions if not (official and d.official)]
        for dimension in [*own, *([_STATIC] if self._only_static else [])]:
            try:
                self._measures[dimension.name] = dimension, dimension.open(networks)
            except MissingNetworkError as error:
                self._missing[dimension.name] = Missing(error.why, error.how)
        if self._only_static and (lacking := self._missing.pop(_STATIC.name, None)):
            # Unfiltered flickering would be another number under the same name.
            self._missing[_FLICKERING] = lacking
            self._measures.pop(_FLICKERING, None)

    def evaluate(self, folder: Path, videos: list[Path], progress: Progress) -> Evaluation:
        wanted = {
            dimension.name: self._chosen(dimension.name, videos) for dimension in self._dimensions
        }
        readable: list[_Readable] = []
        with progress.stage("evaluate", len(videos)) as advance:
            for path in videos:
                asked = [name for name, choice in wanted.items() if path in choice.videos]
                if asked and (found := self._measure(path, asked)):
                    readable.append(found)
                advance(path.name)
        results: dict[str, DimensionResult] = {}
        for dimension in self._dimensions:
            if dimension.name in self._missing:
                continue
            choice = wanted[dimension.name]
            mine = [video for video in readable if video.path in choice.videos]
            if dimension.name == _FLICKERING and self._only_static:
                mine = _first_static(mine)
            result = self._result(dimension, mine, choice.missing, progress)
            if result is not None:
                results[dimension.name] = result
        return Evaluation(folder, results, self._missing, self._failures)

    def _chosen(self, name: str, videos: list[Path]) -> prompt_lists.Choice:
        filtered = name == _FLICKERING and self._only_static
        per_prompt = None if filtered else prompt_lists.PER_PROMPT
        return prompt_lists.choose(name, videos, self._lists, per_prompt)

    def _measure(self, path: Path, asked: list[str]) -> _Readable | None:
        """The scores of one video; None, with a failure, for one that cannot be read."""
        if _FLICKERING in asked and self._only_static:
            asked = [*asked, _STATIC.name]
        try:
            found = _Readable(path, video_digest(path), {})
            new: list[tuple[Dimension, Measure, str]] = []
            for name in asked:
                if name not in self._measures:
                    continue
                dimension, measure = self._measures[name]
                key = score_key(found.digest, dimension, measure.identity)
                known = self._cache.score(key)
                if known is None:
                    new.append((dimension, measure, key))
                else:
                    found.scores[name] = known
            # The official VBench stops at a file that it cannot read, so all are tried before.
            if new or self._official:
                self._score_new(found, new)
        except ClipError as error:
            self._failures.append(Failure(path.name, None, str(error)))
            return None
        return found

    def _score_new(self, found: _Readable, new: list[tuple[Dimension, Measure, str]]) -> None:
        video = read_video(found.path)
        for dimension, measure, key in new:
            try:
                score = measure.score(video)
                if not math.isfinite(score.value):
                    raise ClipError("its score is not a number")
            except ClipError as error:
                self._failures.append(Failure(found.path.name, dimension.name, str(error)))
                continue
            found.scores[dimension.name] = score
            self._cache.put_score(key, score, video=found.path.name, dimension=dimension.name)

    def _result(
        self,
        dimension: Dimension,
        videos: list[_Readable],
        not_there: list[str],
        progress: Progress,
    ) -> DimensionResult | None:
        if self._official and dimension.official:
            return self._official_result(dimension, videos, not_there, progress)
        scores = {
            v.path.name: v.scores[dimension.name] for v in videos if dimension.name in v.scores
        }
        return DimensionResult(
            dimension,
            dimension.aggregate(list(scores.values())),
            self._measures[dimension.name][1].identity,
            {
                name: {"value": score.value, "weight": score.weight, **score.details}
                for name, score in scores.items()
            },
            not_there,
            self._note(dimension),
        )

    def _official_result(
        self,
        dimension: Dimension,
        videos: list[_Readable],
        not_there: list[str],
        progress: Progress,
    ) -> DimensionResult | None:
        """VBench's own; None, with the dimension among the missing, when it gives none."""
        assert self._official is not None
        if not videos:
            return DimensionResult(dimension, None, "official VBench", {}, not_there)
        named = [f"{video.path.name} {video.digest}" for video in videos]
        key = key_of("official", self._official.settings, dimension.name, *named)
        known = self._cache.get(key)
        try:
            if known is None:
                progress.say(f"the official VBench computes {dimension.name}")
                found = self._official.evaluate(dimension.name, [video.path for video in videos])
                self._cache.put(key, vars(found), dimension=dimension.name)
            else:
                found = OfficialResult(**known)
        except MissingNetworkError as error:
            self._missing[dimension.name] = Missing(error.why, error.how)
            return None
        values = {name: {"value": value} for name, value in found.values.items()}
        return DimensionResult(
            dimension, found.score, found.identity, values, not_there, self._note(dimension)
        )

    def _note(self, dimension: Dimension) -> str:
        if dimension.name != _FLICKERING:
            return ""
        if self._only_static:
            return "of the videos that the static filter passes, the first five of each prompt"
        return "of all videos: VBench's leaderboard takes only static ones"


def _list_videos(folder: Path) -> tuple[list[Path], list[Failure]]:
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: give a folder of .mp4 files")
    files = sorted(f for f in folder.iterdir() if f.is_file() and not f.name.startswith("."))
    videos = [file for file in files if file.suffix.lower() == ".mp4"]
    failures = [
        Failure(file.name, None, "VBench reads .mp4 files: convert it")
        for file in files
        if file.suffix.lower() in _OTHER_VIDEOS
    ]
    if not videos:
        raise UserError(f"{folder} has no .mp4 file: give a folder that motive generate wrote")
    return videos, failures


def _first_static(videos: Iterable[_Readable]) -> list[_Readable]:
    """The first five static videos of each prompt, in the order of their numbers."""
    kept: dict[str, int] = {}
    found = []
    for video in sorted(videos, key=lambda v: (prompt_lists.prompt_of(v.path), _number(v.path))):
        static = video.scores.get(_STATIC.name)
        prompt = prompt_lists.prompt_of(video.path)
        if static is not None and static.value and kept.get(prompt, 0) < static_filter.PER_PROMPT:
            kept[prompt] = kept.get(prompt, 0) + 1
            found.append(video)
    return found


def _number(video: Path) -> int:
    digits = video.stem.rpartition("-")[2]
    return int(digits) if digits.isdecimal() else 0
