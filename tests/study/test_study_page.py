"""The page in a real browser: a whole study, keys, reduced motion, accessibility, light and dark, phones."""

import os
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect
from study_parts import Served

from motive.study.creation import create_study
from motive.study.database import open_database
from motive.study.design import Rules, read_design
from motive.study.judgements import read_judgements
from motive.study.judging import Judging
from motive.study.report import report_study
from motive.study.roster import read_tokens, release

MakeStudy = Callable[..., Path]
PATIENCE = 60_000  # ms: the machine may be busy
DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
ENABLED = "input[name=choice]:enabled"
# What axe calls these faults; the others (minor, moderate) are advice.
SERIOUS = {"serious", "critical"}


@pytest.fixture(scope="module")
def served(
    arms: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], str]]:
    """Gives the link of one more annotator of a study that several tests share: two pairs, no checks."""
    folder = tmp_path_factory.mktemp("page") / "study"
    names = [f"annotator {k}" for k in range(12)]
    create_study(
        folder,
        {name: arms[name] for name in ("base", "motive")},
        arms["base"].parent / "prompts.txt",
        Rules(per_pair=len(names)),
        annotators=names,
        seeds=1,
        checks=0,
    )
    with Served(folder) as server:
        links = iter([server.link(name) for name in names])
        yield lambda: next(links)


@pytest.fixture
def context_of(chromium: Browser) -> Iterator[Callable[..., BrowserContext]]:
    """Opens a browser of its own for an annotator; none shares cookies or storage with another."""
    opened: list[BrowserContext] = []

    def open_context(**settings: Any) -> BrowserContext:
        context = chromium.new_context(viewport=settings.pop("viewport", DESKTOP), **settings)
        context.set_default_timeout(PATIENCE)
        opened.append(context)
        return context

    yield open_context
    for context in opened:
        context.close()


def join(context: BrowserContext, link: str) -> Page:
    """Open the link and leave the welcome, as a person does."""
    page = context.new_page()
    page.goto(link)
    page.wait_for_selector("#welcome:not([hidden]), #judge:not([hidden])")
    if page.is_visible("#welcome"):
        page.click("#start")
    return page


def judge(page: Page, choice: str) -> None:
    """Wait until both videos have ended, choose with the pointer, and confirm."""
    before = page.inner_text("#count")
    page.wait_for_selector(ENABLED)
    page.click(f"label:has(input[value={choice}])")
    page.click("#confirm")
    page.wait_for_function(
        "text => document.getElementById('count').innerText !== text", arg=before
    )


def finished(page: Page) -> bool:
    page.wait_for_selector("#judge:not([hidden]), #finished:not([hidden])")
    return page.is_visible("#finished")


def press(page: Page, key: str) -> None:
    """The same with the keyboard alone."""
    before = page.inner_text("#count")
    page.wait_for_selector(ENABLED)
    page.keyboard.press(key)
    expect(page.locator("#confirm")).to_be_enabled()
    page.keyboard.press("Enter")
    page.wait_for_function(
        "text => document.getElementById('count').innerText !== text", arg=before
    )


def test_three_annotators_do_a_whole_study_over_a_killed_server(
    make_study: MakeStudy, context_of: Callable[..., BrowserContext]
) -> None:
    study = make_study(seeds=1)  # 2 pairs and 1 check for each of 3 annotators
    first = Served(study)
    pages = {name: join(context_of(), first.link(name)) for name in ("ann", "bob", "cleo")}
    judge(pages["ann"], "left")
    press(pages["bob"], "ArrowRight")
    pages["ann"].wait_for_selector(ENABLED)
    pages["cleo"].wait_for_selector(ENABLED)
    first.kill()
    # Answers given while there is no server are kept, and sent when there is one again; cleo even
    # closes the page meanwhile.
    pages["ann"].click("label:has(input[value=tie])")
    pages["ann"].click("#confirm")
    expect(pages["ann"].locator("#notice")).to_contain_text("No connection", timeout=PATIENCE)
    pages["cleo"].keyboard.press("ArrowDown")
    pages["cleo"].keyboard.press("Enter")
    expect(pages["cleo"].locator("#notice")).to_contain_text("No connection", timeout=PATIENCE)
    cleos = pages["cleo"].context
    pages["cleo"].close()
    with Served(study, port=first.port) as second:
        expect(pages["ann"].locator("#count")).to_have_text("Pair 3 of 3", timeout=PATIENCE)
        pages["cleo"] = join(cleos, second.address)  # the cookie is enough
        expect(pages["cleo"].locator("#count")).to_have_text("Pair 2 of 3", timeout=PATIENCE)
        for page in pages.values():
            while not finished(page):
                judge(page, "right")
            expect(page.locator("#all-kept")).to_contain_text("All 3 of your answers are saved")
    design = read_design(study)
    held = open_database(study, design)
    found, checks = read_judgements(held, design)
    held.close()
    assert len(found) == len({(j.annotator, j.prompt) for j in found}) == 6
    assert {name: result.answered for name, result in checks.items()} == dict.fromkeys(pages, 1)
    assert all(
        j.response_ms is not None and j.response_ms >= 400 for j in found
    )  # videos last 0.5 s
    analysis = report_study(study)
    assert analysis.judgements + sum(one.judgements for one in analysis.excluded) == 6


def test_what_a_proxy_says_in_the_servers_place_loses_no_answer(
    served: Callable[[], str], context_of: Callable[..., BrowserContext]
) -> None:
    """A log-in page, a busy gateway, and two refusals, after each of which somebody tries again."""
    page = join(context_of(), served())
    page.wait_for_selector(ENABLED)
    said = iter([(200, "<h1>Log in</h1>"), (429, ""), (408, ""), (404, ""), (403, "{}")])

    def interfere(route: Route) -> None:
        status, body = next(said, (None, ""))
        if status is None:
            route.continue_()
        else:
            route.fulfill(status=status, body=body, content_type="text/html")

    page.route("**/api/answers", interfere)
    page.click("label:has(input[value=left])")
    page.click("#confirm")
    for status in (404, 403):
        expect(page.locator("#reason")).to_contain_text(f"({status})", timeout=PATIENCE)
        page.click("#retry")
    expect(page.locator("#count")).to_have_text("Pair 2 of 2", timeout=PATIENCE)
    assert next(said, None) is None
    assert page.evaluate("localStorage.length") == 0  # and the answer was let go of then


def test_a_double_click_takes_over_once(
    make_study: MakeStudy, context_of: Callable[..., BrowserContext]
) -> None:
    study = make_study(annotators=["ann", "bob"], checks=0, rules={"per_pair": 1})
    design = read_design(study)
    held = open_database(study, design)
    judging, token = Judging(design, held), read_tokens(study)["ann"]
    turn = judging.turn(token)
    while turn is not None and turn.place_id is not None:
        kept = judging.answer(token, turn.place_id, "tie", 1000)
        turn = kept and kept[1]
    release(held, "bob")
    held.close()
    with Served(study) as server:
        page = context_of().new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(server.link("ann"))
        page.dblclick("#more")
        page.wait_for_selector(ENABLED)
        assert [url.endswith("/api/more") for url in asked].count(True) == 1


def test_both_videos_play_in_step_and_are_replayed(
    served: Callable[[], str], context_of: Callable[..., BrowserContext]
) -> None:
    page = join(context_of(), served())
    page.wait_for_selector("#judge:not([hidden])")
    assert page.locator(ENABLED).count() == 0  # not before both were seen
    page.keyboard.press("ArrowLeft")
    assert page.locator("input[name=choice]:checked").count() == 0
    apart = page.evaluate(
        """async () => {
            const [left, right] = document.querySelectorAll("video");
            const apart = [];
            for (let i = 0; i < 25; i++) {
                await new Promise(requestAnimationFrame);
                if (!left.paused && !right.paused) {
                    apart.push(Math.abs(left.currentTime - right.currentTime));
                }
            }
            return apart.sort((a, b) => a - b);
        }"""
    )
    assert apart, "they did not play"
    assert apart[len(apart) // 2] < 0.1
    page.wait_for_selector(ENABLED)
    sources = page.evaluate("[...document.querySelectorAll('video')].map((v) => v.src)")
    assert all(source.startswith("blob:") for source in sources)
    assert page.evaluate("[...document.querySelectorAll('video')].every((v) => v.muted)")
    page.evaluate(
        "document.querySelector('#left').addEventListener('seeked', () => (window.again = 1))"
    )
    page.keyboard.press("Home")
    page.wait_for_function("() => window.again === 1")
    page.click("#slow")
    assert page.evaluate("document.querySelector('#left').playbackRate") == 0.5
    expect(page.locator("#slow")).to_have_attribute("aria-pressed", "true")
    page.locator("#seek").fill("500")
    times = page.evaluate("[...document.querySelectorAll('video')].map((v) => v.currentTime)")
    assert times == pytest.approx([0.25, 0.25], abs=0.03)
    assert page.evaluate("[...document.querySelectorAll('video')].every((v) => v.paused)")


def test_a_reloaded_page_shows_the_same_pair_and_links_do_not_mix(
    served: Callable[[], str], context_of: Callable[..., BrowserContext]
) -> None:
    link = served()
    page = join(context_of(), link)
    assert page.url == link.partition("join")[0]  # no secret in the address
    judge(page, "tie")
    with page.expect_response(lambda response: "/places/" in response.url) as first:
        page.reload()
    with page.expect_response(lambda response: "/places/" in response.url) as second:
        page.reload()
    assert first.value.url.split("/")[4] == second.value.url.split("/")[4]
    expect(page.locator("#count")).to_have_text("Pair 2 of 2", timeout=PATIENCE)
    other = join(context_of(), served())
    expect(other.locator("#count")).to_have_text("Pair 1 of 2", timeout=PATIENCE)


def test_reduced_motion_plays_nothing_by_itself(
    served: Callable[[], str], context_of: Callable[..., BrowserContext]
) -> None:
    page = join(context_of(reduced_motion="reduce"), served())
    page.wait_for_selector("#stage:not([aria-busy])")
    page.wait_for_timeout(500)
    assert page.evaluate("[...document.querySelectorAll('video')].every((v) => v.paused)")
    page.keyboard.press("Space")
    page.wait_for_selector(ENABLED)  # it can be played all the same
    page.wait_for_timeout(900)
    assert page.evaluate("[...document.querySelectorAll('video')].every((v) => v.ended)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_no_serious_fault_and_everything_fits(
    served: Callable[[], str],
    context_of: Callable[..., BrowserContext],
    scheme: str,
    viewport: dict[str, int],
) -> None:
    link = served()
    phone = {"has_touch": True, "is_mobile": True} if viewport is PHONE else {}
    # axe is put into the page by the browser's debugger, past the page's own policy.
    context = context_of(viewport=viewport, color_scheme=scheme, bypass_csp=True, **phone)
    page = context.new_page()
    page.goto(link.partition("join")[0])
    assert faults(page) == []
    shoot(page, f"{scheme}-{viewport['width']}-closed")
    page.goto(link)
    page.wait_for_selector("#welcome:not([hidden])")
    assert faults(page) == []
    shoot(page, f"{scheme}-{viewport['width']}-welcome")
    page.click("#start")
    page.wait_for_selector("#judge:not([hidden])")
    assert faults(page) == []
    page.wait_for_selector(ENABLED)
    page.click("label:has(input[value=left])")
    assert faults(page) == []
    shoot(page, f"{scheme}-{viewport['width']}-judge")
    for button in ("#confirm", "#play", "label:has(input[value=tie])"):
        box = page.locator(button).bounding_box()
        assert box is not None
        assert box["height"] >= 44
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= viewport["width"]
        assert box["y"] + box["height"] <= viewport["height"], "one has to scroll for it"
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= viewport["width"]
    page.click("#confirm")
    page.wait_for_selector(ENABLED)
    judge(page, "right")
    page.wait_for_selector("#finished:not([hidden])")
    assert faults(page) == []
    shoot(page, f"{scheme}-{viewport['width']}-finished")


def faults(page: Page) -> list[str]:
    """Serious and critical faults that axe finds on what is shown now."""
    page.evaluate(files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{fault['id']}: {fault['help']} ({fault['nodes'][0]['html']})"
        for fault in found["violations"]
        if fault["impact"] in SERIOUS
    ]


def shoot(page: Page, name: str) -> None:
    """A picture to look at, where MOTIVE_SCREENSHOTS names a folder."""
    if folder := os.environ.get("MOTIVE_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"study-{name}.png")


def test_no_script_of_the_page_breaks_its_policy(
    served: Callable[[], str], context_of: Callable[..., BrowserContext]
) -> None:
    context = context_of()
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(served())
    page.click("#start")
    judge(page, "left")
    assert said == []


def test_other_sites_cannot_post_in_an_annotators_name(
    served: Callable[[], str], make_study: MakeStudy, context_of: Callable[..., BrowserContext]
) -> None:
    """From a page of another origin, in the browser that has the cookie."""
    link = served()
    with Served(make_study()) as other:
        context = context_of()
        page = join(context, link)
        page.wait_for_selector(ENABLED)
        place = page.evaluate(
            "fetch('/api/turn', {method: 'POST', headers: {'Content-Type': 'application/json'}, "
            "body: '{}'}).then((r) => r.json())"
        )["place"]
        attacker = context.new_page()
        attacker.goto(f"{other.address}/health")
        outcome = attacker.evaluate(
            """async ([address, place]) => {
                const outcomes = [];
                for (const mode of ["cors", "no-cors"]) {
                    for (const type of ["application/json", "text/plain"]) {
                        try {
                            const response = await fetch(`${address}/api/answers`, {
                                method: "POST", mode, credentials: "include",
                                headers: {"Content-Type": type},
                                body: JSON.stringify({place, choice: "left"}),
                            });
                            outcomes.push(response.type);
                        } catch { outcomes.push("refused"); }
                    }
                }
                return outcomes;
            }""",
            [link.partition("/join")[0], place],
        )
        assert set(outcome) <= {"refused", "opaque"}, outcome
        page.reload()
        expect(page.locator("#count")).to_have_text("Pair 1 of 2", timeout=PATIENCE)
