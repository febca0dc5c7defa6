"""data-juicer: JSON lines `{"videos": ["p.mp4"], "text": "<__dj__video> cap <|__dj__eoc|>"}`.

A sample may hold several videos: its text is cut into chunks by the end-of-chunk token, and the
n-th video token stands for the n-th video. Paths are relative to the file.
"""

import re

from motive.clips.formats.dataset import MEDIA_SUFFIXES, ExportClip
from motive.clips.formats.entries import Entries
from motive.clips.formats.export import Export
from motive.clips.formats.source import Source
from motive.clips.formats.tables import find_table, read_table

NAME = "data-juicer"

#: It opens every path with PyAV and has no list of its own.
CONTAINERS = MEDIA_SUFFIXES
COLUMN = "videos"

_VIDEO, _EOC = "<__dj__video>", "<|__dj__eoc|>"
_TOKEN = re.compile(r"<\|?__dj__\w+\|?>")
_OURS = re.compile(rf"{_VIDEO} (.*) {re.escape(_EOC)}", re.DOTALL)


def detect(source: Source) -> bool:
    """A table with the column `videos`."""
    return find_table(source, COLUMN) is not None


def read(source: Source, entries: Entries) -> None:
    """One record per video of every sample; then, for a folder, the videos that none names."""
    path = find_table(source, COLUMN)
    assert path is not None, "read follows detect"
    for row in read_table(path).rows:
        videos = row.values.get(COLUMN)
        names = videos if isinstance(videos, list) else [videos]
        text = row.values.get("text")
        captions = _captions(text if isinstance(text, str) else "", len(names))
        fault = None
        if captions is None:
            fault = f"is one of {len(names)} videos whose text ({row.where}) has other video tokens"
        extra = {k: v for k, v in row.values.items() if k not in (COLUMN, "text")}
        for name, caption in zip(names, captions or [""] * len(names), strict=True):
            entries.add(
                name,
                where=row.where,
                folder=path.parent,
                caption=caption,
                extra=extra,
                fault=fault,
            )
    if source.is_folder:
        entries.add_rest(source)


def write(export: Export) -> str:
    """`dataset.jsonl` and `videos/`; rank and scores under `__dj__stats__`, prefixed `motive_`."""
    rows = []
    for clip, name in export.media("videos", CONTAINERS):
        stats: dict[str, float] = {"motive_rank": clip.rank}
        stats |= {f"motive_{key}": value for key, value in clip.scores.items()}
        caption = _plain(export, clip)
        rows.append(
            {"videos": [name], "text": f"{_VIDEO} {caption} {_EOC}", "__dj__stats__": stats}
        )
    export.write_json_lines("dataset.jsonl", rows)
    return (
        "```\ndj-process --config your.yaml "
        f"--dataset_path {export.in_shell('dataset.jsonl')}\n```\n"
        "Our rank and scores are in `__dj__stats__`, where a filter finds them.\n"
    )


def _plain(export: Export, clip: ExportClip) -> str:
    caption = clip.caption
    while _TOKEN.search(caption):  # a removal may join the halves of another token
        caption = _TOKEN.sub("", caption)
    return export.caption(clip, caption, "data-juicer's special tokens removed")


def _captions(text: str, count: int) -> list[str] | None:
    """One caption per video; None when the text of several videos cannot be shared out."""
    if count == 1:
        ours = _OURS.fullmatch(text)
        if ours and not _TOKEN.search(ours[1]):
            return [ours[1]]
        return [_clean(text)]
    captions = [_clean(chunk) for chunk in text.split(_EOC) for _ in range(chunk.count(_VIDEO))]
    return captions if len(captions) == count else None


def _clean(text: str) -> str:
    return " ".join(part.strip() for part in _TOKEN.split(text) if part.strip())
