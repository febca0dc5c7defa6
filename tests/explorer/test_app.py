"""The page's addresses, asked as the page asks them."""

import base64
import json
import os
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from starlette.testclient import TestClient

from motive.clips.formats import EXPORT_FORMATS, read_dataset
from motive.explorer.curation import NAME
from motive.explorer.exporting import formats
from motive.explorer.session import Session

JSON = {"content-type": "application/json"}


def post(client: TestClient, path: str, body: object = None) -> dict:
    answer = client.post(path, content=json.dumps(body or {}), headers=JSON)
    assert answer.status_code == 200, answer.text
    return answer.json()


def ids_of(session: Session) -> list[str]:
    return session.table.clip_ids.to_pylist()


def test_rows_come_in_parts_and_in_order(client: TestClient, session: Session) -> None:
    first = client.get("/api/rows", params={"limit": 4}).json()
    rest = client.get("/api/rows", params={"offset": 4, "limit": 500}).json()
    assert first["total"] == 15
    assert [row["clip_id"] for row in first["rows"] + rest["rows"]] == ids_of(session)
    down = client.get("/api/rows", params={"sort": "mean_speed", "order": "desc"}).json()["rows"]
    speeds = [row["mean_speed"] for row in down]
    assert speeds == sorted(speeds, reverse=True)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/rows?sort=nothing", 400),
        ("/api/rows?filter={", 400),
        ("/api/rows?order=up", 422),
        ("/api/rows?limit=100000", 422),
        ("/api/rows?offset=-1", 422),
        ("/api/histogram?column=caption", 400),
        ("/api/clip/nothing", 404),
        ("/api/at/15", 404),
        ("/api/similar/nothing", 404),
        ("/api/extremes?query=nothing", 404),
        ("/api/scatter?score=nothing", 400),
        ("/api/map?column=nothing", 400),
        ("/api/export/7", 404),
    ],
)
def test_a_wrong_question_is_told_so(client: TestClient, path: str, status: int) -> None:
    answer = client.get(path)
    assert answer.status_code == status
    assert "Traceback" not in answer.text


def test_a_video_is_sent_in_ranges(client: TestClient, session: Session) -> None:
    name = "clips/000003.mp4"
    position = session.table.texts["file_name"].to_pylist().index(name)
    clip_id = ids_of(session)[position]
    content = Path(session.files.find(clip_id).path).read_bytes()
    whole = client.get(f"/media/{clip_id}")
    assert (whole.status_code, whole.content) == (200, content)
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.headers["accept-ranges"] == "bytes"
    part = client.get(f"/media/{clip_id}", headers={"range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, content[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(content)}"
    beyond = client.get(f"/media/{clip_id}", headers={"range": f"bytes={len(content) + 5}-"})
    assert beyond.status_code == 416


def test_a_gif_is_sent_as_h264(client: TestClient, session: Session, tmp_path: Path) -> None:
    position = session.table.texts["file_name"].to_pylist().index("clips/moving.gif")
    clip_id = ids_of(session)[position]
    answer = client.get(f"/media/{clip_id}")
    assert answer.headers["content-type"] == "video/mp4"
    (tmp_path / "copy.mp4").write_bytes(answer.content)
    with av.open(str(tmp_path / "copy.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert sum(1 for _ in container.decode(stream)) > 8
    assert client.get(f"/media/{clip_id}").content == answer.content


def test_the_mask_lies_over_the_frames_that_the_model_saw(
    client: TestClient, session: Session, tmp_path: Path
) -> None:
    clip_id = ids_of(session)[0]
    mask = client.get(f"/api/mask/{clip_id}").json()
    values = np.frombuffer(base64.b64decode(mask["values"]), np.uint8).reshape(mask["shape"])
    (tmp_path / "sampled.mp4").write_bytes(client.get(f"/sampled/{clip_id}.mp4").content)
    with av.open(str(tmp_path / "sampled.mp4")) as container:
        frames = sum(1 for _ in container.decode(video=0))
    assert frames == len(values) == session.files.find(clip_id).frames
    assert values.max() > 0


def test_a_file_that_changed_is_not_shown(client: TestClient, session: Session) -> None:
    clip_id = ids_of(session)[0]
    path = Path(session.files.find(clip_id).path)
    content, times = path.read_bytes(), path.stat()
    try:
        path.write_bytes(content + b"x")
        for address in (f"/media/{clip_id}", f"/sampled/{clip_id}.mp4", f"/poster/{clip_id}.jpg"):
            answer = client.get(address)
            assert answer.status_code == 422
            assert "changed" in answer.json()["error"]
    finally:
        path.write_bytes(content)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # other tests look at it too


def test_decisions_are_made_undone_and_made_again(client: TestClient, session: Session) -> None:
    ids = ids_of(session)
    done = post(client, "/api/decide", {"decision": "include", "clip_ids": ids[-2:]})
    assert (done["changed"], done["chosen"], done["undo"]) == (2, 5, "include 2 clips")
    done = post(client, "/api/decide", {"decision": "exclude", "filter": '{"state": "computed"}'})
    assert (done["excluded"], done["chosen"]) == (3, 2)
    assert post(client, "/api/undo")["chosen"] == 5
    assert post(client, "/api/undo")["chosen"] == 3
    assert post(client, "/api/redo")["chosen"] == 5
    post(client, "/api/note", {"clip_id": ids[0], "text": "too dark"})
    row = client.get("/api/rows", params={"filter": '{"state": "noted"}'}).json()["rows"]
    assert [(r["clip_id"], r["note"]) for r in row] == [(ids[0], "too dark")]


def test_what_the_run_does_not_have_is_not_decided(client: TestClient, session: Session) -> None:
    body = {"decision": "include", "clip_ids": ["0" * 20]}
    answer = client.post("/api/decide", content=json.dumps(body), headers=JSON)
    assert answer.status_code == 404
    query = next(iter(session.queries))
    body = {"decision": "include", "clip_ids": [query]}
    assert client.post("/api/decide", content=json.dumps(body), headers=JSON).status_code == 404
    assert session.curation.values("decision") == {}


def test_a_lasso_around_everything_is_every_clip_on_the_map(client: TestClient) -> None:
    points = client.get("/api/map").json()
    big = [[-9, -9], [9, -9], [9, 9], [-9, 9]]
    found = post(client, "/api/lasso", {"polygon": big})
    assert found["count"] == points["total"] == len(points["x"])
    rows = client.get("/api/rows", params={"filter": json.dumps({"set": found["set"]})}).json()
    assert rows["total"] == found["count"]


def test_groups_count_the_votes_of_the_table(client: TestClient, session: Session) -> None:
    found = client.get("/api/groups").json()
    assert sum(q["votes"] for q in found["queries"]) == session.table.numbers["votes"].sum()
    assert [g["name"] for g in found["groups"]] == ["bounce", "roll"]
    for i, row in enumerate(found["group_overlap"]):
        assert row[i] == 1


def wait_for(client: TestClient, job: dict) -> dict:
    while job["state"] == "running":
        time.sleep(0.05)
        job = client.get(f"/api/export/{job['job']}").json()
    return job


@pytest.mark.parametrize("format", formats())
def test_the_export_has_the_choice_and_not_the_selection(
    client: TestClient, session: Session, tmp_path: Path, format: str
) -> None:
    ids, names = ids_of(session), session.table.texts["file_name"].to_pylist()
    post(client, "/api/decide", {"decision": "exclude", "clip_ids": ids[:1]})
    post(client, "/api/decide", {"decision": "include", "clip_ids": ids[-1:]})
    job = wait_for(client, post(client, "/api/export", {"format": format, "name": "mine"}))
    assert job["state"] == "done", job
    out = session.run.path.resolve() / "exports" / "mine"
    assert Path(job["folder"]) == out
    written = json.loads((out / "export.json").read_text())
    assert [clip["file_name"] for clip in written["clips"]] == [*names[1:3], names[-1]]
    assert [clip["rank"] for clip in written["clips"]] == [2, 3, 15]
    if format in EXPORT_FORMATS and format not in ("fiftyone", "ai-toolkit"):
        inside = {"musubi": "dataset.toml", "finetrainers": "training.json"}
        inside |= {"diffusion-pipe": "dataset.toml", "data-juicer": "dataset.jsonl"}
        found = read_dataset(out / inside.get(format, ""), extract_to=tmp_path / "tar")
        assert len(found.records) == 3


def test_fiftyones_layout(client: TestClient, session: Session) -> None:
    wait_for(client, post(client, "/api/export", {"format": "fiftyone", "name": "f"}))
    out = session.run.path / "exports" / "f"
    metadata = json.loads((out / "metadata.json").read_text())
    assert metadata["media_type"] == "video"
    assert "version" not in metadata  # its importer would want its database's own schema
    samples = json.loads((out / "samples.json").read_text())["samples"]
    table = session.table
    assert [s["motive_rank"] for s in samples] == [1, 2, 3]
    for sample, position in zip(samples, range(3), strict=True):
        row = table.row(position)
        assert (out / sample["filepath"]).is_file()
        assert (sample["caption"], sample["source_name"]) == (row["caption"], row["file_name"])
        assert sample["motive_votes"] == row["votes"]
        assert json.loads((out / sample["frames"]).read_text()) == {"frames": {}}


def test_an_export_is_never_written_over(client: TestClient) -> None:
    wait_for(client, post(client, "/api/export", {"format": "diffsynth", "name": "once"}))
    body = json.dumps({"format": "diffsynth", "name": "once"})
    answer = client.post("/api/export", content=body, headers=JSON)
    assert (answer.status_code, "already" in answer.json()["error"]) == (400, True)


def test_a_map_whose_package_is_missing_names_it(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    assert client.get("/api/run").json()["maps"] == ["pca"]
    answer = client.get("/api/map", params={"method": "umap"})
    assert answer.status_code == 400
    assert "pip install 'motive-attribution[umap]'" in answer.json()["error"]


def test_the_heat_map_is_the_explanations(client: TestClient, session: Session) -> None:
    moving = session.table.row(0)["clip_id"]
    query = max(session.scores.at(0), key=session.scores.at(0).__getitem__)
    found = client.get("/api/explain", params={"clip": moving, "query": query}).json()
    values = np.frombuffer(base64.b64decode(found["values"]), np.int8).reshape(found["shape"])
    heat = values * found["scale"] / 127
    member = session.files.find(moving)
    assert len(found["curve"]) == member.frames == found["frame_map"][-1][1]
    assert heat.sum() == pytest.approx(found["influence"], abs=0.005 * np.abs(heat).sum() + 1e-6)
    first, after = found["best_interval"]
    assert 0 <= first < after <= member.frames
    other = client.get("/api/explain", params={"clip": moving, "query": moving})
    assert other.status_code == 404


def test_a_curation_made_elsewhere_is_seen(client: TestClient, session: Session) -> None:
    other = Session(session.run)
    other.curation.decide(ids_of(session)[-1:], "include")
    other.close()
    assert client.get("/api/rows").json()["rows"][-1]["decision"] == "include"
    assert (session.run.path / NAME).is_file()
