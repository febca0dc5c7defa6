"""The report of a run: one HTML file that shows what was chosen, and why.

Pure rendering. `ReportData` holds everything that the page shows; nothing here knows of tables,
stages or files. The page loads nothing: style, script, scores and previews are inside it, and its
content security policy forbids network access and any script other than its own.
"""

import base64
import hashlib
import json
import math
import re
import zlib
from dataclasses import dataclass
from functools import cached_property, partial
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from motive.web.preview import Preview

__all__ = ["ClipCard", "Preview", "QueryCard", "ReportData", "render_report"]

_TEMPLATES = Path(__file__).parent / "templates"
_SCRIPTS = ("report.playback.js", "report.charts.js", "report.table.js", "report.js")
# Control characters, bidirectional overrides (which disguise a name's extension), and the lone
# surrogates by which Python carries file names that are no UTF-8.
_UNSHOWABLE = re.compile(
    "[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


@dataclass(frozen=True)
class ClipCard:
    """One ranked clip.

    rank: 1 is the best. votes: how many queries voted for it, minus the votes_against of unwanted
    queries. mean_score: mean influence over the queries, an unwanted one's with the opposite sign.
    best_query: id of the wanted query that it influences most. magnitude: mean motion, pixels per
    frame. frames: frames that were attributed. note: what a reader must know, such as
    "static: no motion, feature is zero".
    """

    clip_id: str
    file_name: str
    caption: str
    rank: int
    votes: int
    mean_score: float
    best_query: str | None
    selected: bool
    magnitude: float
    frames: int
    preview: Preview | None
    note: str = ""
    votes_against: int = 0


@dataclass(frozen=True)
class QueryCard:
    """One query and what it says of every clip.

    scores: influence of every clip on this query, shape (clips,), in the order of
    `ReportData.clips`. threshold: τ; a clip scoring above it gets this query's vote.
    top, bottom: the (clip_id, score) pairs to show, best first and worst first. label: the motion
    that it shows, where that is known. unwanted: it shows what the model should not learn, and its
    votes count against a clip.
    """

    query_id: str
    file_name: str
    caption: str
    magnitude: float
    preview: Preview | None
    scores: np.ndarray
    threshold: float
    top: list[tuple[str, float]]
    bottom: list[tuple[str, float]]
    label: str = ""
    unwanted: bool = False


@dataclass(frozen=True)
class Totals:
    """Of all clips of a run that has more than its report holds.

    voted: clips with the vote of each query. correlation: Spearman's ρ of mean influence and motion
    magnitude; None where it is not defined.
    """

    clips: int
    selected: int
    voted: list[int]
    correlation: float | None


@dataclass(frozen=True)
class ReportData:
    """All that a report shows.

    summary and objective: name → value, shown in this order. stages: rows with the keys `stage`,
    `done`, `seconds` and `peak_memory_mb` (other keys become columns too; None shows as a dash).
    failures: (file_name, stage, reason). check: a method comparison, rows with the keys `method`,
    `precision`, `low` and `high`, the run's own method first; check_note says what precision means
    there and on what it was measured. whole: of a run whose clips are not all in `clips`. bounded:
    whether scores lie in -1..1; others have the scale of the gradients.
    """

    title: str
    created: str
    summary: dict[str, str]
    objective: dict[str, str]
    stages: list[dict[str, object]]
    clips: list[ClipCard]
    queries: list[QueryCard]
    failures: list[tuple[str, str, str]]
    check: list[dict[str, object]] | None = None
    check_note: str = ""
    whole: Totals | None = None
    bounded: bool = True

    @cached_property
    def clip_index(self) -> dict[str, int]:
        """Position in `clips` of each clip id."""
        return {clip.clip_id: index for index, clip in enumerate(self.clips)}

    @cached_property
    def query_index(self) -> dict[str, int]:
        """Position in `queries` of each query id."""
        return {query.query_id: index for index, query in enumerate(self.queries)}


def render_report(data: ReportData) -> str:
    """The report as one HTML document, to be written as UTF-8.

    Each distinct preview is embedded once, however many cards show it. Captions, file names and
    every other text are untrusted and escaped.

    Raises ValueError if ids repeat, a card names an unknown clip or query, `scores` has another
    length than `clips`, or a number is not finite.
    """
    _check(data)
    previews = _Previews()
    clip_previews = [previews.add(clip.preview) for clip in data.clips]
    query_previews = [previews.add(query.preview) for query in data.queries]
    names = query_names(data.queries)
    script = _script()
    order = sorted(range(len(data.clips)), key=lambda index: data.clips[index].rank)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_showable,
    )
    environment.filters["number"] = format_number
    environment.filters["score"] = partial(format_score, bounded=data.bounded)
    return environment.get_template("report.html.j2").render(
        data=data,
        names=names,
        clip_previews=clip_previews,
        query_previews=query_previews,
        whole=data.whole or _totals(data),
        boxes=[_box(query.preview) for query in data.queries],
        verdicts=_verdicts(data, names, order),
        stage_columns=list(dict.fromkeys(key for row in data.stages for key in row)),
        slowest=max((_as_float(row.get("seconds")) or 0.0 for row in data.stages), default=0.0),
        check_rows=_check_rows(data.check or []),
        check_scale=_check_scale(data.check or []),
        payload=_payload(data, names, clip_previews, query_previews),
        previews=previews.blocks,
        style=Markup(_asset("report.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def query_names(queries: list[QueryCard]) -> list[str]:
    """A short name for each query: its label, told apart by file name where labels repeat."""
    labels = [query.label for query in queries]
    return [
        query.file_name
        if not query.label
        else query.label
        if labels.count(query.label) == 1
        else f"{query.label} ({query.file_name})"
        for query in queries
    ]


def format_score(score: float, *, bounded: bool = True) -> str:
    """A score with its sign and three decimals; never "−0.000".

    bounded: as of `ReportData`; without bounds one below 0.001 has three significant digits.
    """
    text = f"{score:+.3f}" if bounded or abs(score) >= 0.001 else f"{score:+.3g}"
    if float(text) == 0:
        return "0.000"
    return text.replace("-", "−", 1) if score < 0 else text


def format_number(value: object) -> str:
    """A table cell: thousands separated, at most three significant decimals, a dash for nothing."""
    number = _as_float(value)
    if number is None:
        missing = value is None or (isinstance(value, Real) and not isinstance(value, bool))
        return "–" if missing else str(value)
    size = abs(number)
    digits = 0 if isinstance(value, Integral) or size >= 100 else 1 if size >= 10 else 2
    return f"{number:,.{digits}f}".replace("-", "−")


class _Previews:
    """The distinct previews of a report, each as the two texts that the page decodes."""

    def __init__(self) -> None:
        self.blocks: list[dict[str, object]] = []
        self._index: dict[bytes, int] = {}

    def add(self, preview: Preview | None) -> int | None:
        """The number of this preview's block; a new block only for content not seen before."""
        if preview is None:
            return None
        mask_fhw = np.rint(preview.mask_fhw * 255).astype(np.uint8)
        frames, height, width = mask_fhw.shape
        shape = f"{frames},{height},{width}"
        header = f"{preview.fps!r};{shape};".encode()
        key = hashlib.sha256(header + mask_fhw.tobytes() + preview.mp4).digest()
        if key not in self._index:
            self._index[key] = len(self.blocks)
            self.blocks.append(
                {
                    "fps": f"{preview.fps:.6g}",
                    "shape": shape,
                    "mp4": Markup(_base64(preview.mp4)),
                    # Neighbouring frames share a latent frame, so the mask deflates well.
                    "mask": Markup(_base64(zlib.compress(mask_fhw.tobytes(), 9))),
                }
            )
        return self._index[key]


def _payload(
    data: ReportData,
    names: list[str],
    clip_previews: list[int | None],
    query_previews: list[int | None],
) -> Markup:
    """What the script reads: JSON that cannot end its script element or open a comment in it."""
    payload = {
        "bounded": data.bounded,
        "clips": [
            {
                "file": _showable(clip.file_name),
                "caption": _showable(clip.caption),
                "rank": int(clip.rank),
                "votes": int(clip.votes),
                "against": int(clip.votes_against),
                "mean": float(clip.mean_score),
                "best": None if clip.best_query is None else data.query_index[clip.best_query],
                "selected": bool(clip.selected),
                "magnitude": float(clip.magnitude),
                "frames": int(clip.frames),
                "preview": preview,
                "note": _showable(clip.note),
            }
            for clip, preview in zip(data.clips, clip_previews, strict=True)
        ],
        "queries": [
            {
                "name": _showable(name),
                "unwanted": bool(query.unwanted),
                "preview": preview,
                "threshold": float(query.threshold),
                "scores": _base64(np.asarray(query.scores, dtype="<f4").tobytes()),
                "top": [data.clip_index[clip_id] for clip_id, _ in query.top],
                "bottom": [data.clip_index[clip_id] for clip_id, _ in query.bottom],
            }
            for query, name, preview in zip(data.queries, names, query_previews, strict=True)
        ],
    }
    text = json.dumps(payload, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _verdicts(data: ReportData, names: list[str], order: list[int]) -> list[dict[str, object]]:
    """The best and the worst clip, each with its reason in a sentence or two."""
    if not order:
        return []
    total, lowest = len(data.queries), min(clip.mean_score for clip in data.clips)
    ends = [("best", order[0])] + ([("worst", order[-1])] if len(order) > 1 else [])
    verdicts: list[dict[str, object]] = []
    for kind, index in ends:
        clip = data.clips[index]
        mean = format_score(clip.mean_score, bounded=data.bounded)
        votes = _count(clip.votes, "vote") if clip.votes else "No vote"
        if any(query.unwanted for query in data.queries):
            votes = f"{clip.votes + clip.votes_against} votes for and {clip.votes_against} against"
        reasons = [
            f"{votes} from {_count(total, 'query', 'queries')}, "
            f"mean influence {mean}"
            + (", the lowest of all." if kind == "worst" and clip.mean_score == lowest else ".")
        ]
        if data.queries:
            scores_q = np.array([query.scores[index] for query in data.queries])
            extreme = int(scores_q.argmax() if kind == "best" else scores_q.argmin())
            word = "Strongest for" if kind == "best" else "Weakest for"
            strength = format_score(float(scores_q[extreme]), bounded=data.bounded)
            reasons.append(f"{word} {names[extreme]}: {strength}.")
        reasons.append(f"It moves {clip.magnitude:.2f} pixels per frame.")
        verdicts.append({"kind": kind, "index": index, "clip": clip, "reason": " ".join(reasons)})
    return verdicts


def _check_scale(rows: list[dict[str, object]]) -> float:
    """Where the axis of the method comparison ends: 1, or the largest value if that is above."""
    numbers = [_as_float(row.get(key)) for row in rows for key in ("precision", "low", "high")]
    return max([1.0, *(number for number in numbers if number is not None)])


def _check_rows(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """The method comparison with positions in percent of its axis."""
    scale = _check_scale(rows)

    def position(value: object) -> str | None:
        number = _as_float(value)
        return None if number is None else f"{100 * max(0.0, number) / scale:.2f}"

    return [
        {
            "method": row["method"],
            "precision": row["precision"],
            "low": row.get("low"),
            "high": row.get("high"),
            "at": position(row["precision"]),
            "from": position(row.get("low")),
            "to": position(row.get("high")),
        }
        for row in rows
    ]


def _totals(data: ReportData) -> Totals:
    """Of a report that holds every clip."""
    scores_n = np.array([clip.mean_score for clip in data.clips])
    magnitudes_n = np.array([clip.magnitude for clip in data.clips])
    return Totals(
        clips=len(data.clips),
        selected=sum(clip.selected for clip in data.clips),
        voted=[int((np.asarray(q.scores) > q.threshold).sum()) for q in data.queries],
        correlation=rank_correlation(scores_n, magnitudes_n),
    )


def rank_correlation(scores_n: np.ndarray, magnitudes_n: np.ndarray) -> float | None:
    """Spearman's ρ of mean influence and motion magnitude; None where it is not defined."""
    if len(scores_n) < 3:
        return None
    influence_n, motion_n = _ranks(scores_n), _ranks(magnitudes_n)
    if influence_n.std() == 0 or motion_n.std() == 0:
        return None
    return float(np.corrcoef(influence_n, motion_n)[0, 1])


def _ranks(values_n: np.ndarray) -> np.ndarray:
    """Ranks from 1, ties sharing their mean."""
    _, inverse, counts = np.unique(values_n, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def _check(data: ReportData) -> None:
    """Refuse what would make a page that lies or does not draw."""
    for kind, ids, index in (
        ("clip", [clip.clip_id for clip in data.clips], data.clip_index),
        ("query", [query.query_id for query in data.queries], data.query_index),
    ):
        if len(index) != len(ids):
            raise ValueError(f"{kind} ids are not unique")
    for clip in data.clips:
        if clip.best_query is not None and clip.best_query not in data.query_index:
            raise ValueError(f"clip {clip.clip_id}: unknown best_query {clip.best_query!r}")
        if not (math.isfinite(clip.mean_score) and math.isfinite(clip.magnitude)):
            raise ValueError(f"clip {clip.clip_id}: mean_score or magnitude is not finite")
    for query in data.queries:
        scores = np.asarray(query.scores)
        if scores.shape != (len(data.clips),):
            raise ValueError(
                f"query {query.query_id}: scores of shape {scores.shape} "
                f"for {len(data.clips)} clips"
            )
        shown = [*query.top, *query.bottom]
        numbers = [query.threshold, query.magnitude, *(score for _, score in shown)]
        if not (np.isfinite(scores).all() and np.isfinite(numbers).all()):
            raise ValueError(f"query {query.query_id}: a score or number is not finite")
        for clip_id, _ in shown:
            if clip_id not in data.clip_index:
                raise ValueError(f"query {query.query_id}: unknown clip {clip_id!r}")


def _script() -> str:
    body = "\n".join(_asset(name) for name in _SCRIPTS)
    return f'(() => {{\n"use strict";\n{body}}})();'


def _asset(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _box(preview: Preview | None) -> str:
    """The aspect ratio of a row's tiles: the query's, within reason."""
    if preview is None:
        return "1"
    _, height, width = preview.mask_fhw.shape
    return f"{min(16 / 9, max(3 / 4, width / height)):.4f}"


def _showable(value: Any) -> Any:
    """Text with a replacement character for each character that has no safe appearance."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return _UNSHOWABLE.sub("\ufffd", value)
    return value


def _as_float(value: object) -> float | None:
    if not isinstance(value, Real) or isinstance(value, bool):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
