"""What was tried against the page, on a served study; docs/study.md lists it."""

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send
from study_parts import Served

from motive.study.database import open_database
from motive.study.design import read_design
from motive.study.guard import Guard
from motive.study.roster import read_tokens, standings
from motive.study.server import make_app

MakeStudy = Callable[..., Path]
QUESTION = '<script>alert(1)</script><img src=x onerror=alert(2)> which & "why"?'


@pytest.fixture(scope="module")
def study(arms: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    from motive.study.creation import create_study
    from motive.study.design import Rules

    folder = tmp_path_factory.mktemp("security") / "study"
    create_study(
        folder,
        {name: arms[name] for name in ("base", "motive")},
        arms["base"].parent / "prompts.txt",
        Rules(per_pair=2, question=QUESTION),
        annotators=["ann", "bob"],
        checks=1,
    )
    return folder


@pytest.fixture(scope="module")
def served(study: Path) -> Iterator[Served]:
    with Served(study) as server:
        yield server


@pytest.fixture
def ann(served: Served) -> Iterator[httpx.Client]:
    client = annotator(served, "ann")
    yield client
    client.close()


@pytest.fixture
def bob(served: Served) -> Iterator[httpx.Client]:
    client = annotator(served, "bob")
    yield client
    client.close()


def annotator(served: Served, name: str) -> httpx.Client:
    client = httpx.Client(base_url=served.address, headers={"Origin": served.address}, timeout=60)
    assert client.get(served.link(name)).status_code == 303
    return client


def turn_of(client: httpx.Client) -> dict[str, object]:
    answer = client.post("/api/turn", json={})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def answered(study: Path) -> int:
    held = open_database(study, read_design(study))
    try:
        return sum(one.done for one in standings(held))
    finally:
        held.close()


def test_the_server_listens_on_loopback_alone(served: Served, study: Path) -> None:
    assert served.address.startswith("http://127.0.0.1:")
    tokens = read_tokens(study)
    assert served.said[:-1] == [
        f"{name}\t{served.address}/join/{token}" for name, token in tokens.items()
    ]


def test_a_link_leaves_a_cookie_that_scripts_and_other_sites_do_not_get(served: Served) -> None:
    answer = httpx.get(served.link("ann"), timeout=60)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "secure" not in cookie  # there is no TLS on loopback
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("token", ["x", "0" * 43, "..%2f..%2fstudy.json", "a" * 4000, "%00"])
def test_a_guessed_link_opens_nothing(served: Served, token: str) -> None:
    answer = httpx.get(f"{served.address}/join/{token}", timeout=60)
    assert answer.status_code == 404
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("path", ["/", "/places/0/left"])
def test_without_a_link_there_is_nothing(served: Served, path: str) -> None:
    answer = httpx.get(served.address + path, timeout=60)
    assert answer.status_code in (401, 404)
    assert "moves" not in answer.text
    for address in ("/api/turn", "/api/more"):
        refused = httpx.post(
            served.address + address, json={}, headers={"Origin": served.address}, timeout=60
        )
        assert refused.status_code == 401


def test_another_annotators_pair_is_neither_shown_nor_answered(
    ann: httpx.Client, bob: httpx.Client, study: Path
) -> None:
    place = turn_of(ann)["place"]
    before = answered(study)
    for side in ("left", "right"):
        assert ann.get(f"/places/{place}/{side}").status_code == 200
        assert bob.get(f"/places/{place}/{side}").status_code == 404
    stolen = bob.post("/api/answers", json={"place": place, "choice": "left"})
    assert stolen.status_code == 404
    assert turn_of(bob)["place"] != place
    assert answered(study) == before


def test_what_an_annotator_is_sent_names_no_arm_file_or_prompt(
    ann: httpx.Client, study: Path
) -> None:
    design = read_design(study)
    secrets = {arm for pair in design.pairs for arm in pair.arms} - {"base"}
    secrets |= {pair.prompt for pair in design.pairs} | {str(study)}
    secrets |= {str(pair.video_a) for pair in design.pairs}
    place = turn_of(ann)["place"]
    answers = [
        ann.get("/"),
        ann.post("/api/turn", json={}),
        ann.get(f"/places/{place}/left"),
        ann.get(f"/places/{place}/right"),
    ]
    for answer in answers:
        sent = answer.content + json.dumps(dict(answer.headers)).encode()
        for secret in secrets:
            assert secret.encode() not in sent, (answer.url, secret)
    # Nor do the two sides differ in anything but the video itself.
    left, right = (
        {k: v for k, v in a.headers.items() if k not in ("content-length", "etag", "date")}
        for a in answers[2:]
    )
    assert left == right


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://127.0.0.1.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_posts_from_other_sites_are_refused(
    ann: httpx.Client, study: Path, headers: dict[str, str]
) -> None:
    place = turn_of(ann)["place"]
    before = answered(study)
    body = {"place": place, "choice": "left"}
    for address in ("/api/answers", "/api/turn", "/api/more"):
        assert ann.post(address, json=body, headers=headers).status_code == 403
    assert answered(study) == before


def test_a_form_cannot_answer(ann: httpx.Client, study: Path) -> None:
    place, before = turn_of(ann)["place"], answered(study)
    form = ann.post("/api/answers", data={"place": str(place), "choice": "left"})
    text = ann.post(
        "/api/answers",
        content=json.dumps({"place": place, "choice": "left"}),
        headers={"Content-Type": "text/plain"},
    )
    assert (form.status_code, text.status_code) == (415, 415)
    assert ann.get(f"/api/answers?place={place}&choice=left").status_code == 405
    assert answered(study) == before


def test_other_sites_cannot_embed_videos_or_read_pages(ann: httpx.Client) -> None:
    place = turn_of(ann)["place"]
    cross = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    assert ann.get(f"/places/{place}/left", headers=cross).status_code == 403
    visit = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert ann.get("/", headers=visit).status_code == 200


def test_every_answer_carries_the_security_headers(ann: httpx.Client, served: Served) -> None:
    place = turn_of(ann)["place"]
    paths = ["/", "/static/judge.js", f"/places/{place}/left", "/nowhere", "/join/wrong"]
    for answer in [*(ann.get(path) for path in paths), ann.post("/api/turn", content=b"x" * 9)]:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in answer.headers
        assert "server" not in answer.headers


def test_the_question_is_escaped(ann: httpx.Client) -> None:
    page = ann.get("/").text
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


@pytest.mark.parametrize(
    "path",
    [
        "/study.json",
        "/links.csv",
        "/videos/",
        "/static/../study.json",
        "/static/%2e%2e/server.py",
        "/static/..%2fserver.py",
        "/places/../study.json",
        "/places/x/%2e%2e%2f%2e%2e%2fstudy.json",
        "/places/x/middle",
        "/docs",
        "/openapi.json",
    ],
)
def test_nothing_but_the_pages_files_and_the_places_videos_is_served(
    ann: httpx.Client, served: Served, path: str
) -> None:
    request = ann.build_request("GET", "/")
    request.url = httpx.URL(served.address).copy_with(raw_path=path.encode())
    assert ann.send(request).status_code in (404, 405, 422)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        "null",
        '{"place": "x"}',
        '{"place": "x", "choice": "maybe"}',
        '{"place": 3, "choice": "left"}',
        '{"place": "x", "choice": "left", "response_ms": -1}',
        '{"place": "x", "choice": "left", "response_ms": 1e999}',
        '{"place": "x", "choice": "left", "annotator": 2}',
        '{"place": "' + "x" * 33 + '", "choice": "left"}',
        '{"place": "\\u0000", "choice": "left"}',
        '{"place": "\' OR 1=1 --", "choice": "left"}',
    ],
)
def test_what_is_no_answer_is_refused_without_an_echo(
    ann: httpx.Client, study: Path, body: str
) -> None:
    before = answered(study)
    answer = ann.post(
        "/api/answers", content=body.encode(), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code in (404, 422)
    assert "OR 1=1" not in answer.text
    assert answered(study) == before


def test_long_bodies_are_refused(ann: httpx.Client) -> None:
    headers = {"Content-Type": "application/json"}
    assert ann.post("/api/answers", content=b"x" * 5000, headers=headers).status_code == 413
    chunks = (b"x" for _ in range(3))
    assert ann.post("/api/answers", content=chunks, headers=headers).status_code == 411


def test_a_body_in_chunks_is_refused_whatever_length_it_claims(served: Served) -> None:
    head = (
        f"POST /api/answers HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\nOrigin: {served.address}\r\n"
        "Content-Type: application/json\r\nContent-Length: 10\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as connection:
        connection.sendall(head.encode() + b"2000\r\n" + b"x" * 0x2000 + b"\r\n")  # and no end
        assert connection.recv(100).startswith((b"HTTP/1.1 411", b"HTTP/1.1 400"))


@pytest.mark.parametrize("public_url", [None, "study.example.org", "https://study.example.org"])
@pytest.mark.parametrize("origin", [None, "", "null", "study.example.org"])
def test_a_post_without_a_pages_origin_is_refused(
    public_url: str | None, origin: str | None
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("it was let through")(scope, receive, send)

    headers = {"Content-Type": "application/json"} | ({} if origin is None else {"Origin": origin})
    client = TestClient(Guard(app, public_url), base_url="https://internal:8788")
    assert client.post("/api/turn", json={}, headers=headers).status_code == 403
    headers["Origin"] = "https://internal:8788"
    assert client.post("/api/turn", json={}, headers=headers).status_code == 200


def test_ranges_of_a_video_are_served(ann: httpx.Client) -> None:
    place = turn_of(ann)["place"]
    part = ann.get(f"/places/{place}/left", headers={"Range": "bytes=4-7"})
    assert (part.status_code, part.content) == (206, b"ftyp")


def test_behind_a_proxy_the_cookie_is_secure_and_the_public_origin_counts(
    make_study: MakeStudy,
) -> None:
    study = make_study()
    design = read_design(study)
    held = open_database(study, design)
    app = make_app(study, design, held, "https://study.example.org")
    with TestClient(app, base_url="https://internal:8788") as client:
        token = read_tokens(study)["ann"]
        answer = client.get(f"/join/{token}", follow_redirects=False)
        assert "secure" in answer.headers["set-cookie"].lower()
        headers = {"Origin": "https://study.example.org"}
        assert client.post("/api/turn", json={}, headers=headers).status_code == 200
        headers = {"Origin": "https://evil.example.org"}
        assert client.post("/api/turn", json={}, headers=headers).status_code == 403
    held.close()
