import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
import zlib
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motive.web.preview import encode_preview
from motive.web.report import (
    ClipCard,
    Preview,
    QueryCard,
    ReportData,
    format_number,
    format_score,
    query_names,
    render_report,
)

HOSTILE = [
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "<!--<script>",
    "' onmouseover='alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "</style></title></textarea>",
]


class Page(HTMLParser):
    """The start tags of a page, the text of its elements, and the content of its scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.style = ""
        self._inside = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            attributes, content = self.scripts[-1]
            self.scripts[-1] = (attributes, content + data)
        elif self._inside == "style":
            self.style += data
        else:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    @property
    def program(self) -> str:
        (program,) = [content for attributes, content in self.scripts if "type" not in attributes]
        return program

    @property
    def payload(self) -> dict[str, list[dict[str, object]]]:
        (payload,) = [c for attributes, c in self.scripts if attributes.get("id") == "report-data"]
        return json.loads(payload)

    @property
    def preview_blocks(self) -> list[tuple[dict[str, str | None], str]]:
        return [script for script in self.scripts if script[0].get("class") == "preview-data"]

    def screens(self) -> list[int]:
        return [int(a["data-preview"] or "") for _, a in self.tags if "data-preview" in a]


def preview(shade: int, frames: int = 9) -> Preview:
    frames_fhw3 = np.full((frames, 32, 48, 3), shade, np.uint8)
    frames_fhw3[:, 8:16, 8:16] = 255
    mask_fhw = np.random.default_rng(shade).random((frames, 4, 6), dtype=np.float32)
    return Preview(encode_preview(frames_fhw3, 16.0), 16.0, mask_fhw)


def report(clips: int = 5, queries: int = 2, with_previews: bool = True) -> ReportData:
    scores_qn = np.random.default_rng(clips).normal(0, 0.2, (queries, clips))
    means = scores_qn.mean(0) if queries else np.zeros(clips)
    ranks = np.argsort(np.argsort(-means)) + 1
    cards = [
        ClipCard(
            clip_id=f"id{index}",
            file_name=f"clip_{index}.mp4",
            caption=f"caption {index}",
            rank=int(ranks[index]),
            votes=int(ranks[index] <= 2),
            mean_score=float(means[index]),
            best_query="q0" if queries else None,
            selected=bool(ranks[index] == 1),
            magnitude=1.0 + index,
            frames=9,
            preview=preview(15 * index) if with_previews else None,
        )
        for index in range(clips)
    ]
    query_cards = []
    for query in range(queries):
        best = np.argsort(-scores_qn[query])
        pairs = [(f"id{index}", float(scores_qn[query, index])) for index in best]
        query_cards.append(
            QueryCard(
                query_id=f"q{query}",
                file_name=f"query_{query}.mp4",
                caption="a shape in a scene",
                magnitude=2.5,
                preview=preview(100 + 15 * query) if with_previews else None,
                scores=scores_qn[query],
                threshold=0.1,
                top=pairs[:3],
                bottom=pairs[::-1][:3],
                label=["bounce", "spin"][query % 2],
            )
        )
    return ReportData(
        title="runs/test",
        created="2026-07-14",
        summary={"model": "tiny-wan"},
        objective={"timestep": "751 of 1000"},
        stages=[
            {"stage": "ingest", "done": clips, "seconds": 2.0, "peak_memory_mb": 212.4},
            {"stage": "score", "done": clips, "seconds": 0.5, "peak_memory_mb": None},
        ],
        clips=cards,
        queries=query_cards,
        failures=[("broken.mp4", "ingest", "moov atom not found")],
    )


def with_clip(data: ReportData, index: int, **changes: object) -> ReportData:
    clips = list(data.clips)
    clips[index] = replace(clips[index], **changes)
    return replace(data, clips=clips)


def with_query(data: ReportData, index: int, **changes: object) -> ReportData:
    queries = list(data.queries)
    queries[index] = replace(queries[index], **changes)
    return replace(data, queries=queries)


def test_the_answer_comes_first_with_its_reasons() -> None:
    data = report()
    page = Page(render_report(data))
    headline = page.text.index("1 of 5 clips selected", page.text.index("runs/test 2026"))
    best = next(clip for clip in data.clips if clip.rank == 1)
    worst = next(clip for clip in data.clips if clip.rank == 5)
    strongest = max(data.queries, key=lambda query: query.scores[data.clips.index(best)])
    score = format_score(float(strongest.scores[data.clips.index(best)]))
    assert headline < page.text.index("Best clip") < page.text.index("Worst clip")
    assert f"Best clip {best.file_name}" in page.text
    assert f"Worst clip {worst.file_name}" in page.text
    assert f"1 vote from 2 queries, mean influence {format_score(best.mean_score)}." in page.text
    assert f"Strongest for {strongest.label}: {score}." in page.text
    assert "No vote from 2 queries" in page.text
    assert "the lowest of all." in page.text


def test_every_query_shows_its_ends_in_order() -> None:
    data = report(queries=2)
    page = Page(render_report(data))
    cards = [a["data-clip"] for tag, a in page.tags if tag == "li" and "data-clip" in a]
    expected = [
        str(data.clip_index[clip_id])
        for query in data.queries
        for clip_id, _ in [*query.top, *query.bottom]
    ]
    assert cards == expected
    for query in data.queries:
        for _, score in query.top:
            assert format_score(score) in page.text
        assert f"votes for {(query.scores > query.threshold).sum()} of 5" in page.text


def test_each_preview_is_embedded_once_and_whole() -> None:
    data = report()
    shared = data.clips[0].preview
    data = with_query(data, 0, preview=shared)
    html = render_report(data)
    page = Page(html)
    distinct = [clip.preview for clip in data.clips] + [data.queries[1].preview]
    assert len(page.preview_blocks) == len(distinct)
    for block, shown in zip(page.preview_blocks, distinct, strict=True):
        assert shown is not None
        attributes, content = block
        mp4, mask = content.split(" ")
        assert html.count(mp4) == 1
        assert base64.b64decode(mp4) == shown.mp4
        assert attributes["data-fps"] == "16"
        shape = tuple(int(side) for side in (attributes["data-shape"] or "").split(","))
        mask_fhw = np.frombuffer(zlib.decompress(base64.b64decode(mask)), np.uint8).reshape(shape)
        np.testing.assert_allclose(mask_fhw / 255, shown.mask_fhw, atol=0.5001 / 255)
    assert set(page.screens()) == set(range(len(distinct)))
    assert page.payload["queries"][0]["preview"] == page.payload["clips"][0]["preview"]


def test_the_script_gets_the_numbers_of_the_run() -> None:
    data = report()
    payload = Page(render_report(data)).payload
    for sent, clip in zip(payload["clips"], data.clips, strict=True):
        assert (sent["file"], sent["caption"], sent["rank"]) == (
            clip.file_name,
            clip.caption,
            clip.rank,
        )
        assert (sent["votes"], sent["mean"], sent["selected"], sent["best"]) == (
            clip.votes,
            clip.mean_score,
            clip.selected,
            0,
        )
    for sent, query in zip(payload["queries"], data.queries, strict=True):
        scores = np.frombuffer(base64.b64decode(str(sent["scores"])), "<f4")
        np.testing.assert_array_equal(scores, query.scores.astype(np.float32))
        assert sent["threshold"] == query.threshold


def test_numpy_scalars_are_numbers_too() -> None:
    data = with_clip(
        report(),
        0,
        rank=np.int64(1),
        votes=np.int32(2),
        mean_score=np.float32(0.5),
        selected=np.bool_(True),
        magnitude=np.float32(1.25),
    )
    assert Page(render_report(data)).payload["clips"][0]["mean"] == 0.5


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text: str) -> None:
    plain = Page(render_report(report(with_previews=False)))
    data = report(with_previews=False)
    data = with_clip(data, 0, caption=text, file_name=text, note=text)
    data = with_query(data, 0, caption=text, file_name=text, label=text)
    data = replace(
        data,
        title=text,
        created=text,
        summary={text: text},
        objective={text: text},
        failures=[(text, text, text)],
        check_note=text,
        check=[{"method": text, "precision": 0.5, "low": 0.4, "high": 0.6}],
    )
    page = Page(render_report(data))
    # HTMLParser has turned the entities back: what is read is what was written, as text.
    assert text in page.text
    assert page.payload["clips"][0]["caption"] == text
    counts, expected = (Counter(tag for tag, _ in each.tags) for each in (page, plain))
    for tag in ("script", "style", "img", "title", "meta"):
        assert counts[tag] == expected[tag]
    handlers = [name for _, a in page.tags for name in a if name.startswith("on")]
    assert handlers == []


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=60), st.text(max_size=60))
def test_no_text_changes_the_structure_of_the_page(caption: str, file_name: str) -> None:
    data = report(clips=2, queries=1, with_previews=False)
    tags = [tag for tag, _ in Page(render_report(data)).tags]
    data = with_clip(data, 0, caption="c" + caption, file_name="f" + file_name)
    html = render_report(data)
    page = Page(html)
    assert [tag for tag, _ in page.tags] == tags
    shown = str(page.payload["clips"][0]["caption"])
    assert len(shown) == len(caption) + 1
    assert all(a in (b, "\ufffd") for a, b in zip(shown, "c" + caption, strict=True))
    html.encode("utf-8")


def test_names_that_are_not_utf8_and_names_that_lie_are_shown_as_such() -> None:
    data = with_clip(
        report(with_previews=False), 0, file_name="caf\udce9.mp4", caption="a\u202e4pm.exe"
    )
    data = replace(data, failures=[("caf\udce9.mp4", "ingest", "\x1b[31mred")])
    html = render_report(data)
    page = Page(html)
    html.encode("utf-8")
    assert page.payload["clips"][0]["file"] == "caf\ufffd.mp4"
    assert page.payload["clips"][0]["caption"] == "a\ufffd4pm.exe"
    assert "\ufffd[31mred" in page.text
    assert "\u202e" not in html


def test_unicode_and_long_names_arrive_unharmed() -> None:
    names = ["跳ねる球 🤸‍♀️", "مرحبا بالعالم", "x" * 4000]
    data = report(with_previews=False)
    for index, name in enumerate(names):
        data = with_clip(data, index, file_name=name)
    payload = Page(render_report(data)).payload
    assert [clip["file"] for clip in payload["clips"][:3]] == names


def test_the_policy_allows_this_script_and_nothing_from_outside() -> None:
    page = Page(render_report(report()))
    (policy,) = [a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a]
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    digest = base64.b64encode(hashlib.sha256(page.program.encode()).digest()).decode()
    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "media-src": "data: blob:",
        "style-src": "'unsafe-inline'",
        "script-src": f"'sha256-{digest}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_nothing_is_loaded() -> None:
    page = Page(render_report(report()))
    for _tag, attributes in page.tags:
        assert not {"src", "srcset", "poster", "action", "data", "ping"} & attributes.keys()
        href = attributes.get("href")
        assert href is None or href.startswith("#") or href == "data:,"
    assert "url(" not in page.style
    assert "@import" not in page.style
    calls = r"\b(fetch|XMLHttpRequest|WebSocket|EventSource|sendBeacon|importScripts|import)\s*\("
    assert not re.search(calls, page.program)


def test_the_script_never_makes_markup_or_code_from_text() -> None:
    program = Page(render_report(report())).program
    for name in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert name not in program


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_script_parses(tmp_path: Path) -> None:
    path = tmp_path / "report.js"
    path.write_text(Page(render_report(report())).program, encoding="utf-8")
    result = subprocess.run(["node", "--check", path], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_every_element_that_the_script_looks_up_is_there() -> None:
    page = Page(render_report(report(clips=5, queries=11)))
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    wanted = re.findall(r'(?:byId|getElementById)\("([^"]+)"\)', page.program)
    assert len(wanted) > 20
    assert set(wanted) <= set(ids)


def test_labels_point_at_their_controls() -> None:
    page = Page(render_report(report()))
    ids = {a.get("id") for _, a in page.tags}
    assert {a["for"] for tag, a in page.tags if tag == "label" and "for" in a} <= ids
    for tag, attributes in page.tags:
        if tag in ("canvas", "svg") and attributes.get("role") == "img":
            assert attributes.get("aria-label")


def test_failures_and_what_was_computed() -> None:
    page = Page(render_report(report()))
    assert "1 file was left out of the ranking." in page.text
    assert "broken.mp4 ingest moov atom not found" in page.text
    assert "timestep 751 of 1000" in page.text
    assert "Stage Done Seconds Peak memory (MB)" in page.text
    assert "ingest 5 2.00 212 score 5 0.50 –" in page.text


def test_a_static_clip_says_so_on_its_card() -> None:
    note = "static: no motion, feature is zero"
    data = report()
    shown = data.clip_index[data.queries[0].top[0][0]]
    page = Page(render_report(with_clip(data, shown, note=note)))
    assert note in page.text
    assert page.payload["clips"][shown]["note"] == note


def test_the_check_is_drawn_to_scale() -> None:
    rows: list[dict[str, object]] = [
        {"method": "Motive", "precision": 0.5, "low": 0.25, "high": 0.75},
        {"method": "random", "precision": 0.1, "low": None, "high": float("nan")},
    ]
    page = Page(render_report(replace(report(), check=rows, check_note="Share of the top 10%.")))
    assert "Share of the top 10%." in page.text
    assert "Motive 0.50 0.25 to 0.75" in page.text
    assert "random 0.10 – to –" in page.text
    styles = [a["style"] for tag, a in page.tags if tag in ("b", "s") and "style" in a]
    assert styles == ["left:25.00%;right:calc(100% - 75.00%)", "left:50.00%", "left:10.00%"]
    assert "Check against known motion" not in Page(render_report(report())).text


@pytest.mark.parametrize(("clips", "queries"), [(0, 0), (0, 1), (1, 1), (1, 0), (2, 1)])
@pytest.mark.parametrize("with_previews", [False, True])
def test_the_smallest_runs_render(clips: int, queries: int, with_previews: bool) -> None:
    data = replace(report(clips, queries, with_previews), failures=[], stages=[], objective={})
    html = render_report(data)
    page = Page(html)
    assert f"{min(1, clips)} of {clips} {'clip' if clips == 1 else 'clips'} selected" in page.text
    assert "None. Every file is in the ranking." in page.text
    assert "nan" not in page.text.lower()
    assert ("Worst clip" in page.text) == (clips > 1)
    assert not any(a.get("href") == "#computed" for _, a in page.tags)
    assert len(page.preview_blocks) == (clips + queries if with_previews else 0)
    assert ("no preview" in page.text) == (not with_previews and clips + queries > 0)


def test_correlation_with_motion_is_of_ranks() -> None:
    def correlation(magnitudes: list[float]) -> str:
        data = report(clips=5, with_previews=False)
        order = sorted(range(5), key=lambda index: data.clips[index].mean_score)
        for index, magnitude in zip(order, magnitudes, strict=True):
            data = with_clip(data, index, magnitude=magnitude)
        return Page(render_report(data)).text

    assert "rank correlation of +1.00" in correlation([1.0, 2.0, 3.0, 4.0, 1000.0])
    assert "rank correlation of −1.00" in correlation([1000.0, 4.0, 3.0, 2.0, 1.0])
    # Ranks 1 2 3 4 5 against 1 2.5 2.5 4 5: Pearson of the two is 9.5 / sqrt(10 * 9.5).
    assert "rank correlation of +0.97" in correlation([1.0, 2.0, 2.0, 4.0, 5.0])
    assert "rank correlation" not in correlation([1.0] * 5)


def test_the_page_does_not_grow_a_row_for_every_clip() -> None:
    few, many = (Page(render_report(report(clips, 2, with_previews=False))) for clips in (5, 500))
    for tag in ("tr", "li", "button"):
        assert [t for t, _ in many.tags].count(tag) == [t for t, _ in few.tags].count(tag)
    assert len(many.payload["clips"]) == 500


def test_queries_with_one_label_are_told_apart() -> None:
    data = report(queries=3)
    assert [query.label for query in data.queries] == ["bounce", "spin", "bounce"]
    names = ["bounce (query_0.mp4)", "spin", "bounce (query_2.mp4)"]
    assert query_names(data.queries) == names
    assert query_names([replace(data.queries[0], label="")]) == ["query_0.mp4"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda d: with_clip(d, 1, clip_id="id0"), "clip ids"),
        (lambda d: with_query(d, 1, query_id="q0"), "query ids"),
        (lambda d: with_clip(d, 1, best_query="elsewhere"), "best_query"),
        (lambda d: with_clip(d, 1, mean_score=float("nan")), "not finite"),
        (lambda d: with_clip(d, 1, magnitude=float("inf")), "not finite"),
        (lambda d: with_query(d, 1, scores=np.zeros(4)), "scores of shape"),
        (lambda d: with_query(d, 1, scores=np.full(5, np.nan)), "not finite"),
        (lambda d: with_query(d, 1, threshold=float("nan")), "not finite"),
        (lambda d: with_query(d, 1, top=[("elsewhere", 0.1)]), "unknown clip"),
        (lambda d: with_query(d, 1, bottom=[("id0", float("nan"))]), "not finite"),
    ],
)
def test_contradictory_data_is_refused(changed, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render_report(changed(report(with_previews=False)))


def test_rendering_is_deterministic() -> None:
    assert render_report(report()) == render_report(report())


@pytest.mark.parametrize(
    ("score", "text"),
    [(0.4123, "+0.412"), (-0.2, "−0.200"), (0.0, "0.000"), (-0.0001, "0.000"), (0.0001, "0.000")],
)
def test_scores_are_signed(score: float, text: str) -> None:
    assert format_score(score) == text


@pytest.mark.parametrize(
    ("score", "text"),
    [
        (0.4123, "+0.412"),
        (-0.001, "−0.001"),
        (0.00012345, "+0.000123"),
        (-3.2e-6, "−3.2e-06"),
        (0.0, "0.000"),
    ],
)
def test_tiny_scores_without_bounds_have_three_digits(score: float, text: str) -> None:
    assert format_score(score, bounded=False) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (np.float32("nan"), "–"),
        (12345, "12,345"),
        (np.int64(12345), "12,345"),
        (1234.5, "1,234"),
        (12.34, "12.3"),
        (1.234, "1.23"),
        (-1.5, "−1.50"),
        (True, "True"),
        ("dis", "dis"),
    ],
)
def test_numbers_are_short(value: object, text: str) -> None:
    assert format_number(value) == text


def test_importing_the_report_is_cheap() -> None:
    program = (
        "import sys, motive.web.report; print(sorted({'torch', 'av', 'cv2'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr
