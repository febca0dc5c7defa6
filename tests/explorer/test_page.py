"""The page in a real headless Chromium: play, sort, filter, select, undo, export, and what axe finds."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_core_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from conftest import HOSTILE, Server
from motive.explorer.session import Session

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
VIEWS = ["clips", "compare", "map", "motions", "choice"]
PATIENCE = 30_000  # milliseconds; the machine may be busy


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        if os.environ.get("CI"):
            pytest.fail("Chromium is missing, and CI is set")
        pytest.skip("Chromium is not installed")
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield made
        made.close()


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    """The grid, open; fails afterwards if the page's script complained."""
    made, complaints = open_page(browser, server.address)
    yield made
    made.close()
    assert complaints == []


def open_page(browser: Browser, address: str, **settings: Any) -> tuple[Page, list[str]]:
    page = browser.new_page(**{"viewport": {"width": 1280, "height": 800}, **settings})
    page.set_default_timeout(PATIENCE)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda message: (
            complaints.append(message.text)
            if message.type == "error" and "Content Security Policy" in message.text
            else None
        ),
    )
    page.goto(address)
    page.wait_for_selector(".card")
    return page, complaints


def ranks(page: Page) -> list[int]:
    """Of the cards, as they lie on the page."""
    script = """() => [...document.querySelectorAll('.sheet .card')]
        .sort((a, b) => a.getAttribute('aria-posinset') - b.getAttribute('aria-posinset'))
        .map((card) => Number(card.querySelector('.rank').textContent))"""
    return page.evaluate(script)


def chosen(page: Page, number: int) -> None:
    pattern = re.compile(f"^{number} chosen")
    expect(page.locator("#chosen-count")).to_have_text(pattern, timeout=PATIENCE)


def card(page: Page, rank: int) -> Any:
    return page.locator(".sheet .card", has=page.locator(f".rank:text-is('{rank}')"))


def test_a_clip_plays_under_the_pointer(page: Page) -> None:
    card(page, 1).hover()
    page.wait_for_function(
        "() => { const v = document.querySelector('.sheet video'); return v && v.currentTime > 0.1; }"
    )
    page.locator("#search").hover()
    expect(page.locator(".sheet video")).to_have_count(0)


def test_sort_filter_and_search(page: Page, session: Session) -> None:
    table = session.table
    seen = len(ranks(page))
    assert 8 <= seen <= 15  # only those in sight, and nearly so, are there
    assert ranks(page) == list(range(1, seen + 1))
    page.select_option("#sort", "mean_speed")
    page.click("#direction")
    by_speed = [int(p) + 1 for p in table.order("mean_speed", descending=True)]
    page.wait_for_function(
        "(first) => document.querySelector('.card[aria-posinset=\"1\"] .rank')?.textContent == first",
        arg=str(by_speed[0]),
    )
    assert ranks(page) == by_speed[: len(ranks(page))]
    page.fill("#search", "river")
    expect(page.locator("#total")).to_have_text("1 clip of 15")
    page.fill("#search", "")
    expect(page.locator("#total")).to_have_text("15 clips")
    page.select_option("#state-filter", "chosen")
    expect(page.locator("#total")).to_have_text("3 clips of 15")
    page.get_by_role("button", name="Clear all").click()
    expect(page.locator("#total")).to_have_text("15 clips")
    handle = page.get_by_label("Votes, least")
    handle.focus()
    for _ in range(3):
        handle.press("PageUp")
    least = json.loads(handle.evaluate("e => JSON.stringify(e.getAttribute('aria-valuetext'))"))
    expected = int((table.numbers["votes"] >= int(least)).sum())
    assert 0 < expected < 15
    expect(page.locator("#total")).to_have_text(
        f"{expected} clip{'s' if expected != 1 else ''} of 15"
    )


def test_select_include_exclude_undo_and_a_new_start(
    page: Page, server: Server, session: Session
) -> None:
    chosen(page, 3)
    card(page, 1).get_by_role("button", name="Exclude").click()
    chosen(page, 2)
    expect(card(page, 1)).to_have_class(re.compile("excluded"))
    card(page, 5).locator(".pick").click()
    card(page, 8).locator(".pick").click(modifiers=["Shift"])
    expect(page.locator(".bulk-what")).to_have_text("4 clips selected")
    page.locator(".bulk").get_by_role("button", name="Include").click()
    chosen(page, 6)
    page.keyboard.press("Control+z")
    chosen(page, 2)
    page.keyboard.press("Control+Shift+z")
    chosen(page, 6)
    page.click("#undo")
    page.click("#undo")
    chosen(page, 3)
    expect(page.locator("#undo")).to_be_disabled()
    page.click("#redo")
    page.reload()
    chosen(page, 2)
    assert session.curation.values("decision") == {session.table.row(0)["clip_id"]: "exclude"}


def test_an_answer_that_is_late_does_not_show_what_no_longer_holds(page: Page) -> None:
    """The answer of the first of two undos is held back, so that the second's could overtake it."""
    for rank, left in ((1, 2), (2, 1)):
        card(page, rank).get_by_role("button", name="Exclude").click()
        chosen(page, left)
    held: list[tuple[Route, Any]] = []

    def hold_the_first(route: Route) -> None:
        answer = route.fetch()  # the server has done it
        if held:
            route.fulfill(response=answer)
        else:
            held.append((route, answer))

    page.route("**/api/undo", hold_the_first)
    page.click("#undo")
    page.click("#undo")
    while not held:
        page.wait_for_timeout(50)
    page.wait_for_timeout(500)  # time for a second answer
    route, answer = held[0]
    route.fulfill(response=answer)
    page.wait_for_timeout(500)
    chosen(page, 3)
    expect(page.locator("#undo")).to_be_disabled()


def test_the_clip_beside_its_query(page: Page, session: Session) -> None:
    card(page, 1).locator(".screen").click()
    dialog = page.locator("#detail")
    expect(dialog.locator("h2")).to_have_text("Rank 1")
    expect(dialog.locator("video")).to_have_count(2)
    page.wait_for_function(
        "() => [...document.querySelectorAll('#detail video')].every((v) => v.currentTime > 0.05)"
    )
    lit = "() => { const c = document.querySelectorAll('#detail .overlay')[1]; if (!c.width) return 0;"
    lit += " return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v) => v > 40); }"
    page.wait_for_function(lit)
    dialog.get_by_role("button", name="Pause").click()
    times = "() => [...document.querySelectorAll('#detail video')].map((v) => v.currentTime * 16)"
    dialog.get_by_label("Position in the clips").fill("0")
    dialog.get_by_role("button", name="One frame on").click()
    page.wait_for_timeout(200)
    assert [int(t) for t in page.evaluate(times)] == [1, 1]
    page.fill("#note", "<b>dark</b> & slow")
    dialog.get_by_role("button", name="Include", exact=True).click()
    chosen(page, 3)
    dialog.get_by_role("button", name="Next clip").click()
    expect(dialog.locator("h2")).to_have_text("Rank 2")
    expect(dialog.locator(".similar .card").first).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    first = session.table.row(0)["clip_id"]
    assert session.curation.values("note") == {first: "<b>dark</b> & slow"}
    assert session.curation.values("decision") == {first: "include"}


def test_captions_and_notes_stay_text(page: Page, session: Session) -> None:
    ids = session.table.clip_ids.to_pylist()
    session.curation.note(ids[0], HOSTILE[0] + HOSTILE[1])
    page.reload()
    for caption in HOSTILE:
        expect(page.locator(".sheet .caption", has_text=caption)).to_have_count(1)
    card(page, 1).locator(".screen").click()
    expect(page.locator("#note")).to_have_value(HOSTILE[0] + HOSTILE[1])
    page.wait_for_selector(".similar .card")
    assert page.evaluate("window.broken") is None
    assert page.locator("img[src='x']").count() == 0


def test_lasso_diversity_and_export(page: Page, session: Session) -> None:
    page.goto(page.url.partition("#")[0] + "#map")
    expect(page.locator(".legend")).not_to_be_empty()
    box = page.locator(".scatter").bounding_box()
    assert box
    corners = [(0.01, 0.01), (0.99, 0.01), (0.99, 0.99), (0.01, 0.99), (0.01, 0.02)]
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=6)
    page.mouse.up()
    expect(page.locator(".bulk-what")).to_have_text(re.compile(r"1\d clips in the lasso"))
    page.get_by_role("button", name="Show in the grid").click()
    expect(page.locator(".set")).to_contain_text("Clips in the lasso")

    page.goto(page.url.partition("#")[0] + "#choice")
    page.fill("#per-source", "1")
    page.select_option("#source-by", "motion")
    expect(page.locator(".effect")).to_contain_text("come in")
    page.get_by_role("button", name="Apply").click()
    page.get_by_role("button", name="Back to the computed selection").click()
    chosen(page, 3)

    page.click("#open-export")
    page.select_option("#export-format", "diffsynth")
    page.fill("#export-name", "from the page")
    page.click("#export-start")
    expect(page.locator("#export-state")).to_contain_text("clips: 3", timeout=PATIENCE)
    written = session.run.path / "exports" / "from_the_page"
    assert len(json.loads((written / "metadata.json").read_text())) == 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_axe_finds_no_serious_fault(
    browser: Browser, server: Server, scheme: str, size: str
) -> None:
    viewport = (
        {"width": 1280, "height": 800} if size == "desktop" else {"width": 390, "height": 844}
    )
    page, complaints = open_page(browser, server.address, viewport=viewport, color_scheme=scheme)
    found = {}
    for view in VIEWS:
        page.goto(f"{server.address}#{view}")
        page.wait_for_load_state("networkidle")
        found[view] = faults(page)
        # Nothing is wider than the screen.
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"], view
    page.goto(f"{server.address}#clips")
    card(page, 1).locator(".screen").click()
    page.wait_for_selector(".similar .card")
    found["detail"] = faults(page)
    page.close()
    assert {view: faults for view, faults in found.items() if faults} == {}
    assert complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_numbers_can_be_read_on_every_heat(browser: Browser, server: Server, scheme: str) -> None:
    """axe does not judge mixed colours. At least 4.5 to 1, as WCAG 2.2 AA asks (1.4.3)."""
    page, _ = open_page(browser, server.address, color_scheme=scheme)
    page.goto(f"{server.address}#motions")
    page.wait_for_selector(".heat-cell:not(.same)")
    contrasts = page.evaluate(
        """async () => {
          const { heatOf } = await import('/static/motions_view.js');
          const canvas = document.createElement('canvas').getContext('2d');
          const luminance = (colour) => {
            canvas.fillStyle = colour;
            canvas.fillRect(0, 0, 1, 1);
            const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3)
              .map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
          };
          const cell = document.querySelector('.heat-cell:not(.same)');
          return [0, 0.1, 0.4, 0.41, 0.6, 1].map((value) => {
            cell.style.setProperty('--heat', heatOf(value));
            const style = getComputedStyle(cell);
            const [a, b] = [luminance(style.color), luminance(style.backgroundColor)];
            return Math.max(a, b) / Math.min(a, b);
          });
        }"""
    )
    page.close()
    assert min(contrasts) >= 4.5, contrasts
    assert contrasts == sorted(contrasts, reverse=True)  # and more overlap is more colour


def faults(page: Page) -> list[str]:
    violations = Axe().run(page)["violations"]
    return [
        f"{v['id']}: {node['target']} {node['any'][0]['message'] if node['any'] else ''}"
        for v in violations
        if v["impact"] in ("serious", "critical")
        for node in v["nodes"]
    ]


def test_reduced_motion_is_respected(browser: Browser, server: Server) -> None:
    page, _ = open_page(browser, server.address, reduced_motion="reduce")
    card(page, 1).hover()
    page.wait_for_timeout(400)
    assert page.locator(".sheet video").count() == 0
    card(page, 1).locator(".screen").click()
    expect(page.locator("#detail").get_by_role("button", name="Play")).to_be_visible()
    page.close()


def test_a_million_clips_scroll(browser: Browser, server: Server, session: Session) -> None:
    """The grid's own part of it: answers are made up here, the server's part is a benchmark."""
    template = session.table.row(0) | {"chosen": False, "decision": None, "note": ""}

    def answer(route: Route) -> None:
        query = dict(part.split("=") for part in route.request.url.partition("?")[2].split("&"))
        first, limit = int(query.get("offset", 0)), int(query.get("limit", 100))
        rows = [template | {"rank": i + 1} for i in range(first, min(1_000_000, first + limit))]
        route.fulfill(json={"total": 1_000_000, "version": 1, "rows": rows})

    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(PATIENCE)
    page.route("**/api/rows?*", answer)
    page.goto(server.address)
    page.wait_for_selector(".card")
    scroller = page.locator(".scroller")
    scroller.focus()
    page.keyboard.press("End")
    wait_for_rank(page, 1_000_000)
    assert card(page, 1_000_000).bounding_box()["y"] < 800
    page.keyboard.press("Home")
    wait_for_rank(page, 1)
    # A wheel's notch moves by what it says, not by a thousand rows.
    before = card(page, 1).bounding_box()["y"]
    scroller.hover()
    page.mouse.wheel(0, 120)
    page.wait_for_timeout(300)
    assert card(page, 1).bounding_box()["y"] == pytest.approx(before - 120, abs=3)
    # The bar, dragged to the middle, is the middle of the clips.
    scroller.evaluate("(e) => { e.scrollTop = (e.scrollHeight - e.clientHeight) / 2; }")
    wait_for_rank(page, 500_000, within=100)
    assert page.locator(".sheet .card").count() < 120
    page.close()


def wait_for_rank(page: Page, rank: int, within: int = 0) -> None:
    """Until a clip of about this rank is on the page."""
    script = """([rank, within]) => [...document.querySelectorAll('.sheet .rank')]
        .some((r) => Math.abs(Number(r.textContent) - rank) <= within)"""
    page.wait_for_function(script, arg=[rank, within])


def test_a_server_that_is_gone_is_told(page: Page, server: Server) -> None:
    server.stop()
    card(page, 1).get_by_role("button", name="Exclude").click()
    expect(page.locator(".toast.wrong")).to_be_visible()


def test_shots_can_be_taken(browser: Browser, server: Server, tmp_path: Path) -> None:
    """No view is blank, in either scheme: a screenshot has many colours."""
    import cv2
    import numpy as np

    for scheme in ("light", "dark"):
        page, _ = open_page(browser, server.address, color_scheme=scheme)
        page.wait_for_load_state("networkidle")
        page.screenshot(path=tmp_path / f"{scheme}.png")
        image = cv2.imread(str(tmp_path / f"{scheme}.png"))
        assert image is not None
        assert len(np.unique(image.reshape(-1, 3), axis=0)) > 500
        corner = image[790, 5].mean()
        assert corner > 200 if scheme == "light" else corner < 60
        page.close()


def test_tiny_scores_without_bounds_are_told_apart(browser: Browser, server: Server) -> None:
    def of_another_estimator(route: Route) -> None:
        found = route.fetch().json()
        for row in found.get("rows", []):
            row["mean_score"] = -3.2061e-6 if row["rank"] == 2 else 3.2061e-6
        route.fulfill(json={**found, "bounded": False} if "columns" in found else found)

    made = browser.new_page()
    made.route(re.compile("/api/(run|rows)"), of_another_estimator)
    made.goto(server.address)
    card = made.locator(".sheet .card")
    expect(card.first).to_contain_text("+3.21e-06 score", timeout=PATIENCE)
    expect(card.filter(has_text="−3.21e-06 score")).to_have_count(1)
    shown = """async (values) => {
        const { fine } = await import("/static/dom.js");
        return values.map((value) => fine(value, 3, true));
    }"""
    values = [0, 0.4123, -0.001, 0.00012345, 1e-9, -0.0005, None]
    told = ["+0.000", "+0.412", "−0.001", "+0.000123", "+1e-09", "−0.0005", "–"]
    assert made.evaluate(shown, values) == told
    made.close()
