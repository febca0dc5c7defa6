import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motive.errors import UserError
from motive.explorer.choice import Diversity
from motive.explorer.curation import NAME, Curation
from motive.explorer.session import Session

CLIPS = ["a", "b", "c"]
ACTIONS = st.one_of(
    st.tuples(
        st.just("decide"),
        st.sets(st.sampled_from(CLIPS), min_size=1),
        st.sampled_from(["include", "exclude", None]),
    ),
    st.tuples(st.just("note"), st.sampled_from(CLIPS), st.sampled_from(["why", "", "because"])),
    st.tuples(st.sampled_from(["undo", "redo", "reopen"])),
)


@settings(deadline=None, max_examples=40)
@given(st.lists(ACTIONS, max_size=14))
def test_it_is_a_list_of_states_to_walk_along(actions: list[tuple]) -> None:
    """Against the plain model: a list of states and a place in it; reopening changes nothing."""
    with tempfile.TemporaryDirectory() as name:
        curation = Curation(Path(name))
        states: list[dict[str, dict[str, str]]] = [{"decision": {}, "note": {}}]
        at = 0
        for kind, *given_ in actions:
            now = states[at]
            if kind == "undo":
                assert (curation.undo() is None) == (at == 0)
                at = max(0, at - 1)
            elif kind == "redo":
                assert (curation.redo() is None) == (at == len(states) - 1)
                at = min(len(states) - 1, at + 1)
            elif kind == "reopen":
                curation.close()
                curation = Curation(Path(name))
            else:
                new = {field: dict(values) for field, values in now.items()}
                if kind == "decide":
                    curation.decide(sorted(given_[0]), given_[1])
                    new["decision"] |= dict.fromkeys(given_[0], given_[1])
                else:
                    curation.note(given_[0], given_[1])
                    new["note"][given_[0]] = given_[1]
                new = {f: {k: v for k, v in vs.items() if v} for f, vs in new.items()}
                if new != now:
                    states = [*states[: at + 1], new]
                    at += 1
            assert curation.values("decision") == states[at]["decision"]
            assert curation.values("note") == states[at]["note"]
        curation.close()


def test_another_process_is_seen(tmp_path: Path) -> None:
    here, there = Curation(tmp_path), Curation(tmp_path)
    before = here.version()
    there.decide(["a"], "include")
    assert here.version() != before
    assert here.values("decision") == {"a": "include"}
    here.close()
    there.close()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a kill that nothing can catch")
def test_a_killed_process_leaves_whole_decisions(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from motive.explorer.curation import Curation\n"
        f"c = Curation(Path({str(tmp_path)!r}))\n"
        "ids = [f'{i:020x}' for i in range(3000)]\n"
        "while True:\n"
        "    c.decide(ids, 'include'); c.decide(ids, 'exclude'); print('.', flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    curation = Curation(tmp_path)
    found = curation.values("decision")
    assert len(found) == 3000
    assert len(set(found.values())) == 1
    assert curation.undo() is not None
    curation.close()


def test_the_runs_own_files_stay_as_they_are(session: Session) -> None:
    own = {p: p.read_bytes() for p in session.run.path.glob("*") if p.is_file() and p.name != NAME}
    ids = session.table.clip_ids.to_pylist()
    session.curation.decide(ids, "exclude")
    session.curation.note(ids[0], "no")
    session.choice.save_diversity(Diversity(per_source=1))
    session.choice.refresh()
    assert not session.choice.chosen.any()
    assert {p: p.read_bytes() for p in own} == own


def test_decisions_survive_a_restart(session: Session) -> None:
    ids = session.table.clip_ids.to_pylist()
    session.curation.decide(ids[-1:], "include")
    again = Session(session.run)
    assert again.choice.chosen[-1]
    assert again.curation.undo() == "include 1 clip"
    assert not again.choice.mask("chosen")[-1]
    again.close()


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("hello, this is no database at all " * 40)
    with pytest.raises(UserError, match="move that file away"):
        Curation(tmp_path)


def test_a_file_of_a_newer_version(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / NAME) as db:
        db.execute("pragma user_version = 99")
    with pytest.raises(UserError, match="newer version"):
        Curation(tmp_path)
