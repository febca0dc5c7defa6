"""What was tried against the explorer; docs/explorer.md lists it."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

from conftest import HOST
from motive.explorer.app import make_app
from motive.explorer.security import is_loopback
from motive.explorer.session import Session

OUTSIDE = [
    "../run.yaml",
    "..%2Frun.yaml",
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "%2Fetc%2Fpasswd",
    "....//....//etc/passwd",
    "x' or 1=1 --",
    "%00",
    "run.yaml",
]
BODY = json.dumps({"decision": None, "clip_ids": []})
JSON = {"content-type": "application/json"}


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize(
    "place", ["/media/{}", "/poster/{}.jpg", "/sampled/{}.mp4", "/api/mask/{}", "/static/{}"]
)
def test_nothing_but_the_runs_clips_is_served(client: TestClient, place: str, name: str) -> None:
    answer = client.get(place.format(name))
    assert answer.status_code in (404, 405), answer.text
    assert "root:" not in answer.text
    assert "objective" not in answer.text


def test_a_path_that_a_client_does_not_tidy_up(server) -> None:  # type: ignore[no-untyped-def]
    """Clients resolve `..` before they ask; this one does not."""
    import socket

    with socket.create_connection(server.socket.getsockname()) as raw:
        host = server.address.split("/")[2]
        raw.sendall(
            f"GET /static/../../session.py HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode()
        )
        answer = b""
        while part := raw.recv(4096):
            answer += part
    assert answer.startswith(b"HTTP/1.1 404")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8765",
        "127.0.0.1.evil.example",
        "192.168.1.9",
        "",
        "localhost.evil",
    ],
)
def test_another_name_is_refused(client: TestClient, host: str) -> None:
    assert client.get("/api/run", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost:8765", "[::1]:8765"])
def test_the_names_of_this_machine_are_taken(client: TestClient, host: str) -> None:
    assert client.get("/api/rows", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "http://localhost:8765"},
    ],
)
def test_a_post_of_another_site_is_refused(
    client: TestClient, session: Session, headers: dict[str, str]
) -> None:
    body = json.dumps({"decision": "exclude", "clip_ids": session.table.clip_ids.to_pylist()})
    answer = client.post("/api/decide", content=body, headers=JSON | headers)
    assert answer.status_code == 403
    assert session.curation.values("decision") == {}


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_a_form_is_refused(client: TestClient, kind: str) -> None:
    answer = client.post("/api/undo", content=BODY, headers={"content-type": kind})
    assert answer.status_code == 415


@pytest.mark.parametrize("path", ["/api/rows", "/api/run", "/media/x", "/api/curation"])
def test_another_site_cannot_read(client: TestClient, path: str) -> None:
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
    assert client.get(path, headers=headers).status_code == 403
    answer = client.get("/api/rows", headers={"origin": "https://evil.example"})
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


def test_the_page_may_run_its_own_script_alone(client: TestClient) -> None:
    for path in ("/", "/api/rows", "/static/main.js", "/api/clip/nothing"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"


def test_the_scripts_never_make_markup_of_text() -> None:
    static = Path(__file__).parents[2] / "src" / "motive" / "explorer" / "static"
    files = sorted(static.glob("*.js"))
    assert len(files) > 8
    for file in files:
        text = file.read_text()
        for risky in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert risky not in text, (file.name, risky)
    page = (static / "index.html").read_text()
    assert "http://" not in page
    assert "https://" not in page
    assert "<script>" not in page


@pytest.mark.parametrize(
    "name", ["../../../tmp/evil", "/tmp/evil", "..", ".", "a/b", "con\x00", "  ", "~", "x" * 99]
)
def test_an_export_stays_in_its_folder(client: TestClient, session: Session, name: str) -> None:
    body = json.dumps({"format": "diffsynth", "name": name})
    answer = client.post("/api/export", content=body, headers=JSON)
    if answer.status_code == 200:
        folder = Path(answer.json()["folder"])
        assert folder.parent == session.run.path.resolve() / "exports"
    else:
        assert answer.status_code == 400


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/decide", {"decision": "include", "clip_ids": ["x" * 500]}),
        ("/api/decide", {"decision": "delete", "clip_ids": []}),
        ("/api/decide", {"decision": "include", "clip_ids": [], "more": 1}),
        ("/api/note", {"clip_id": "x", "text": "y" * 20_000}),
        ("/api/lasso", {"polygon": [[0, 0]]}),
        ("/api/lasso", {"polygon": [["a", 0]] * 4}),
        ("/api/diversity", {"per_source": 0}),
        ("/api/diversity", {"similarity": 7}),
        ("/api/export", {"format": "diffsynth", "name": "x", "out": "/etc"}),
    ],
)
def test_a_malformed_body_is_refused(client: TestClient, path: str, body: dict) -> None:
    assert client.post(path, content=json.dumps(body), headers=JSON).status_code == 422


def test_who_reaches_a_public_server_needs_the_address_that_was_printed(session: Session) -> None:
    app = make_app(session, "0.0.0.0", token="secret-in-the-address")
    with TestClient(app, base_url="http://10.0.0.5:8765") as client:
        assert client.get("/api/rows").status_code == 401
        assert client.get("/?token=guess").status_code == 401
        assert client.get("/api/rows?token=secret-in-the-address").status_code == 401
        answer = client.get("/?token=secret-in-the-address", follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=lax" in cookie
        assert [name for name in client.cookies if name.startswith("motive_explorer_")]
        assert client.get("/api/rows").status_code == 200
        assert client.get("/api/rows", headers={"host": "evil.example"}).status_code == 421


def test_a_body_without_an_end_is_not_read(client: TestClient) -> None:
    def endless() -> Iterator[bytes]:
        yield b'{"clips": ['

    path = "/api/undo"
    assert client.post(path, content=endless(), headers=JSON).status_code == 411
    huge = {**JSON, "content-length": str(2**30)}
    assert client.post(path, content=b"{}", headers=huge).status_code == 413
    both = {**JSON, "content-length": "2", "transfer-encoding": "chunked"}
    assert client.post(path, content=b"{}", headers=both).status_code == 411


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("::", False)],
)
def test_loopback_is_told_apart(host: str, expected: bool) -> None:
    assert is_loopback(host) == expected


def test_a_real_socket_says_the_same(server) -> None:  # type: ignore[no-untyped-def]
    assert server.address.startswith(f"http://{HOST}:")
    with httpx.Client(base_url=server.address) as client:
        assert client.get("/api/rows").status_code == 200
        assert client.get("/api/rows", headers={"host": "evil.example"}).status_code == 421
        assert client.get("/docs").status_code == 404
        assert client.get("/openapi.json").status_code == 404
