"""`motive study` as an organiser runs it."""

import csv
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from motive.cli import main
from motive.study.database import open_database
from motive.study.design import read_design
from motive.study.judgements import read_judgements
from motive.study.judging import Judging
from motive.study.roster import read_tokens
from motive.study.serving import public_address

MakeStudy = Callable[..., Path]


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["study", *map(str, words)])
    return int(ended.value.code or 0)


def complaint(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one sentence of a refused command."""
    capsys.readouterr()
    assert run(*words) == 2
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert line.startswith("motive: ")
    assert said.out == ""
    return line


def judge_everything(study: Path, choices: dict[str, str]) -> None:
    """Each annotator answers all with the named arm's side; checks are always answered rightly."""
    design = read_design(study)
    held = open_database(study, design)
    judging = Judging(design, held)
    arm_of = {p.video_a: p.arm_a for p in design.pairs} | {p.video_b: p.arm_b for p in design.pairs}
    standing = {check.video_b for check in design.checks}
    for name, token in read_tokens(study).items():
        turn = judging.turn(token)
        while turn is not None and turn.place_id is not None:
            left = judging.video(token, turn.place_id, "left")
            right = judging.video(token, turn.place_id, "right")
            if standing & {left, right}:
                choice = "left" if right in standing else "right"
            elif choices[name] == "tie":
                choice = "tie"
            else:
                choice = "left" if arm_of[left] == choices[name] else "right"
            kept = judging.answer(token, turn.place_id, choice, 3000)  # type: ignore[arg-type]
            assert kept is not None
            turn = kept[1]
    held.close()


def test_from_folders_to_a_report(
    arms: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "study"
    words = ["--prompts", arms["base"].parent / "prompts.txt", "--out", study, "--quiet"]
    words += [f"--arm={name}={folder}" for name, folder in list(arms.items())[:2]]
    assert run("create", *words, "--annotators", 4, "--checks", 2, "--question", "Better?") == 0
    said = capsys.readouterr().out
    assert "4 pairs, 16 judgements planned, 4 annotators" in said
    assert "motive against base: power 0." in said
    assert f"next: motive study serve {study}" in said
    assert "no judgement to report yet" in complaint(capsys, "report", study)

    names = list(read_tokens(study))
    choices = ["motive", "motive", "tie", "base"]
    judge_everything(study, dict(zip(names, choices, strict=True)))
    assert run("report", study, "--exclude", f"{names[3]}=left early") == 0
    text = capsys.readouterr().out
    assert "12 judgements of 16 planned, 3 annotators, 1 excluded" in text
    assert f"{names[3]} (4 judgements): left early" in text
    content = json.loads((study / "report.json").read_text())
    (row,) = content["comparisons"]
    assert (row["arm_a"], row["wins"], row["ties"], row["losses"]) == ("motive", 8, 4, 0)
    assert content["question"] == "Better?"
    assert content["checks"][names[0]] == {"passed": 2, "answered": 2}

    assert run("links", study, "--public-url", "https://study.example.org/") == 0
    lines = capsys.readouterr().out.splitlines()
    token = read_tokens(study)[names[0]]
    assert lines[0] == f"{names[0]}\t6 of 6\thttps://study.example.org/join/{token}"


def test_a_database_server_is_named_with_every_command_and_never_written_down(
    arms: dict[str, Path], tmp_path: Path, postgres: str, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "study"
    words = ["--prompts", arms["base"].parent / "prompts.txt", "--quiet", "--annotators", 2]
    words += [f"--arm={name}={folder}" for name, folder in list(arms.items())[:2]]
    assert run("create", *words, "--out", study, "--database", postgres) == 0
    assert not (study / "study.db").exists()
    for file in (study / "study.json", study / "links.csv"):
        assert "postgresql" not in file.read_text()
    assert "give --database its URL" in complaint(capsys, "serve", study)
    design = read_design(study)
    held = open_database(study, design, postgres)
    judging, token = Judging(design, held), read_tokens(study)["annotator-01"]
    turn = judging.turn(token)
    assert turn is not None
    assert turn.place_id is not None
    judging.answer(token, turn.place_id, "left", 2000)
    held.close()
    assert run("links", study, "--database", postgres) == 0
    assert "annotator-01\t1 of 9" in capsys.readouterr().out
    # A database belongs to one study.
    said = complaint(capsys, "create", *words, "--out", tmp_path / "b", "--database", postgres)
    assert "belongs to another study" in said


def test_judgements_from_elsewhere(
    make_study: MakeStudy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = make_study(seeds=1)
    pair, other = read_design(study).pairs
    file = tmp_path / "found.csv"

    def write(*rows: tuple[object, ...]) -> None:
        with file.open("w", newline="") as out:
            writer = csv.writer(out)
            writer.writerow(("annotator", "prompt", "arm_a", "arm_b", "choice"))
            writer.writerows(rows)

    write(
        ("eve", pair.prompt, "base", "motive", "motive"),
        ("eve", other.prompt, "motive", "base", "tie"),
    )
    assert run("import", file, study) == 0
    assert capsys.readouterr().out == "2 judgements are new, 0 were there already\n"
    assert run("import", file, study) == 0
    assert capsys.readouterr().out == "0 judgements are new, 2 were there already\n"
    assert run("report", study) == 0
    (row,) = json.loads((study / "report.json").read_text())["comparisons"]
    assert (row["arm_a"], row["wins"], row["ties"], row["losses"]) == ("motive", 1, 1, 0)

    write(("eve", pair.prompt, "motive", "base", "base"))
    assert "eve has two answers" in complaint(capsys, "import", file, study)
    write(
        ("fay", pair.prompt, "motive", "base", "base"),
        ("fay", "unheard of", "motive", "base", "tie"),
    )
    assert "no pair of motive and base" in complaint(capsys, "import", file, study)
    write(("fay", pair.prompt, "motive", "base", "left"))
    assert "line 2, has the choice left" in complaint(capsys, "import", file, study)
    write(("", pair.prompt, "motive", "base", "tie"))
    assert "has no annotator" in complaint(capsys, "import", file, study)
    file.write_text("annotator,prompt\n")
    assert "has no column arm_a" in complaint(capsys, "import", file, study)
    assert "cannot be read" in complaint(capsys, "import", tmp_path / "none.csv", study)
    # Of the refused files nothing was taken.
    assert run("import", study / "judgements.csv", study) == 0
    assert capsys.readouterr().out == "0 judgements are new, 2 were there already\n"


def test_an_import_that_failed_can_be_repeated(
    tmp_path: Path, database_url: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    file, study = tmp_path / "found.csv", tmp_path / "study"
    words = ["import", file, study] + (["--database", database_url] if database_url else [])
    head = "annotator,prompt,arm_a,arm_b,choice\n"
    file.write_text(head + "ann,p,x,y,x\nann,p,x,y,y\n")
    assert "ann has two answers" in complaint(capsys, *words)
    file.write_text(head + "ann,q,x,y,x\nbob,q,x,y,tie\n")
    assert run(*words) == 0
    assert capsys.readouterr().out == "2 judgements are new, 0 were there already\n"


def test_an_import_that_was_killed_is_taken_up(
    tmp_path: Path, database_url: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed as soon as its judgements are in the database, before the study's design is in place."""
    file, study = tmp_path / "found.csv", tmp_path / "study"
    words = ["import", file, study] + (["--database", database_url] if database_url else [])
    file.write_text("annotator,prompt,arm_a,arm_b,choice\nann,q,x,y,x\nbob,q,x,y,tie\n")
    code = """
import os, signal, sys
from motive.cli import main
def die(event, words):
    if event == "os.rename" and str(words[1]).endswith("study.json"):
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(die)
main(["study", *sys.argv[1:]])
"""
    killed = subprocess.run([sys.executable, "-c", code, *map(str, words)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert run(*words) == 0
    assert capsys.readouterr().out == "0 judgements are new, 2 were there already\n"
    assert run(*words) == 0


def test_the_side_of_a_judgement_from_elsewhere_is_the_files(
    make_study: MakeStudy, tmp_path: Path
) -> None:
    study = make_study(seeds=1)
    design = read_design(study)
    file = tmp_path / "found.csv"
    with file.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(("annotator", "prompt", "arm_a", "arm_b", "choice", "left"))
        for pair in design.pairs:
            writer.writerow(("ann", pair.prompt, "motive", "base", "motive", "motive"))
            writer.writerow(("bob", pair.prompt, "base", "motive", "motive", "base"))
            writer.writerow(("cleo", pair.prompt, "base", "motive", "motive", ""))
    assert run("import", file, study) == 0
    held = open_database(study, design)
    found, _ = read_judgements(held, design)
    held.close()
    sides = {(j.annotator, j.a_left) for j in found}
    assert sides == {("ann", True), ("bob", False), ("cleo", None)}


def test_a_study_of_collected_judgements_has_no_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "found.csv"
    file.write_text(
        "annotator,prompt,arm_a,arm_b,choice\nann,p,x,y,x\nbob,p,y,x,y\nann,q,x,y,tie\n"
    )
    assert run("import", file, tmp_path / "study") == 0
    assert "no page to serve" in complaint(capsys, "serve", tmp_path / "study")
    assert run("report", tmp_path / "study") == 0
    (row,) = json.loads((tmp_path / "study" / "report.json").read_text())["comparisons"]
    assert (row["arm_a"], row["arm_b"]) == ("x", "y")
    assert (row["wins"], row["ties"], row["losses"]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--arm", "base"], "names no folder"),
        (["--arm", "base={base}", "--arm", "base={base}"], "given twice"),
        (["--arm", "tie={base}", "--arm", "b={base}"], "cannot name an arm"),
        (["--arm", "a={base}", "--arm", "b={base}", "--preference", "0.4"], "between 0.5 and 1"),
        (["--arm", "a={base}", "--arm", "b={base}", "--question", " "], "--question is empty"),
        (["--arm", "a={base}", "--arm", "b={base}", "--annotators", "0"], "--annotators"),
        (["--arm", "a={base}", "--arm", "b={base}", "--seed", "-1"], "--seed"),
    ],
)
def test_mistakes_are_one_sentence(
    words: list[str],
    reason: str,
    arms: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [word.format(base=arms["base"]) for word in words]
    prompts = str(arms["base"].parent / "prompts.txt")
    said = complaint(
        capsys, "create", *given, "--prompts", prompts, "--out", tmp_path / "study", "--quiet"
    )
    assert reason in said
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    "address",
    [
        "study.example.org",
        "study.example.org:8788",
        "ftp://study.example.org",
        "https://",
        "https://:443",
        "https://example.org/study",
        "https://example.org/?study",
        "https://ann@example.org",
        "https://example.org:99999",
        "https://[::1",
        "",
    ],
)
def test_a_public_address_that_cannot_work_is_refused_before_anything_is_done(
    address: str, make_study: MakeStudy, capsys: pytest.CaptureFixture[str]
) -> None:
    study = make_study()
    tokens = read_tokens(study)
    for words in (("serve", study), ("links", study, "--renew", "ann")):
        said = complaint(capsys, *words, "--public-url", address)
        assert "write it like https://study.example.org" in said
    assert read_tokens(study) == tokens


def test_a_public_address_is_written_as_browsers_write_it() -> None:
    assert public_address("HTTPS://Study.Example.org:443/") == "https://study.example.org"
    assert public_address("http://[::1]:8788") == "http://[::1]:8788"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "0", ""])
def test_every_interface_is_no_address_to_send(
    host: str, make_study: MakeStudy, capsys: pytest.CaptureFixture[str]
) -> None:
    said = complaint(capsys, "serve", make_study(), "--host", host, "--port", 0)
    assert "add --public-url" in said


def test_what_cannot_be_served_is_one_sentence(
    make_study: MakeStudy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "is no study" in complaint(capsys, "serve", tmp_path)
    study = make_study()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = complaint(capsys, "serve", study, "--port", port)
        assert f"127.0.0.1:{port} cannot be listened on" in said
    next((study / "videos").iterdir()).unlink()
    assert "lacks 1 videos" in complaint(capsys, "serve", study)
    (study / "study.json").write_text("{}")
    assert "is not a study's design" in complaint(capsys, "report", study)


def test_missing_packages_are_one_sentence_and_help_needs_none() -> None:
    # To import, and to look for, what is None in sys.modules is to find that it is not there.
    missing = "sqlalchemy", "alembic", "fastapi", "uvicorn"
    code = f"""
import sys
sys.modules.update(dict.fromkeys({missing!r}))
from motive.cli import main
main(sys.argv[1:])
"""
    refused = subprocess.run(
        [sys.executable, "-c", code, "study", "report", "nowhere"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert refused.returncode == 2
    assert refused.stderr == (
        "motive: motive study needs sqlalchemy: pip install 'motive-attribution[study]'\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code, "study", "--help"], capture_output=True, text=True, check=True
    )
    assert "report" in shown.stdout


@pytest.mark.parametrize("command", ["create", "serve", "links", "report", "import"])
def test_help_says_what_each_command_is_for(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command, "--help") == 0
    assert "Usage:" in capsys.readouterr().out
