"""The blind pairwise human study."""

from pathlib import Path
from typing import Annotated

import typer

from motive.commands.options import Quiet, make_progress
from motive.errors import UserError

study_app = typer.Typer(
    help="The blind pairwise human study: which arm's videos do people prefer?",
    no_args_is_help=True,
)


# No docstring: the help above is the group's.
@study_app.callback()
def _packages() -> None:
    from motive.study import require_packages

    require_packages()


StudyArgument = Annotated[Path, typer.Argument(metavar="STUDY", help="The study's folder.")]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database",
        envvar="MOTIVE_STUDY_DATABASE",
        help="postgresql://… of a database server; else SQLite in the study's folder.",
    ),
]
PublicUrl = Annotated[
    str | None,
    typer.Option(help="The address that annotators use, http(s)://HOST; e.g. a proxy's."),
]


@study_app.command()
def create(
    arm: Annotated[
        list[str], typer.Option(metavar="NAME=DIR", help="An arm and its PROMPT-i.mp4; repeat it.")
    ],
    prompts: Annotated[Path, typer.Option(help="The prompts: .txt, .json or .csv.")],
    out: Annotated[Path, typer.Option(help="The study's folder, new or to be taken up.")],
    against: Annotated[
        str | None, typer.Option(help="Compare every arm with this one; else all with all.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Videos of a prompt; else all there are.")
    ] = None,
    annotators: Annotated[int, typer.Option(min=1, help="How many people judge.")] = 10,
    annotator: Annotated[
        list[str] | None, typer.Option(help="Their names, instead of a number; repeat it.")
    ] = None,
    per_pair: Annotated[
        int | None, typer.Option(min=1, help="Judgements of each pair; else everybody's.")
    ] = None,
    question: Annotated[
        str, typer.Option(help="What annotators are asked.")
    ] = "Which video moves better?",
    checks: Annotated[int, typer.Option(min=0, help="Attention checks for everybody.")] = 5,
    pass_share: Annotated[
        float, typer.Option(min=0, max=1, help="Of the checks, to be counted.")
    ] = 0.8,
    preference: Annotated[
        float, typer.Option(help="What the study should tell from 0.5, for its power.")
    ] = 0.6,
    handover_hours: Annotated[
        float, typer.Option(help="After so long an absence others may take over pairs.")
    ] = 48.0,
    seed: Annotated[int, typer.Option(min=0, help="Of shares, sides and orders.")] = 0,
    database: DatabaseUrl = None,
    quiet: Quiet = False,
) -> None:
    """Make a study: anonymous copies of the videos, and who judges what, on which side, when."""
    if not 0.5 < preference < 1:
        raise UserError("--preference must lie between 0.5 and 1")
    if not handover_hours > 0:
        raise UserError("--handover-hours must be above 0")
    if not question.strip():
        raise UserError("--question is empty: say what annotators are to judge")
    names = annotator or [f"annotator-{k:02d}" for k in range(1, annotators + 1)]
    from motive.study.analysis import planned_of
    from motive.study.creation import create_study
    from motive.study.design import Rules

    design = create_study(
        out,
        _arms(arm),
        prompts,
        Rules(
            question=question.strip(),
            per_pair=per_pair or len(names),
            pass_share=pass_share,
            preference=preference,
            handover_hours=handover_hours,
            seed=seed,
        ),
        annotators=names,
        against=against,
        seeds=seeds,
        checks=checks,
        database=database,
        progress=make_progress(quiet),
    )
    print(
        f"{len(design.pairs)} pairs, {len(design.pairs) * design.rules.per_pair} judgements planned, "
        f"{len(names)} annotators"
    )
    for (arm_a, arm_b), planned in zip(design.arm_pairs, planned_of(design), strict=True):
        print(
            f"{arm_a} against {arm_b}: power {planned.power:.2f} to tell "
            f"{planned.preference:.0%} from 50%"
        )
    print(f"next: motive study serve {out}")


@study_app.command()
def serve(
    study: StudyArgument,
    host: Annotated[str, typer.Option(help="Interface; 0.0.0.0 is all of them.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8788,
    public_url: PublicUrl = None,
    database: DatabaseUrl = None,
) -> None:
    """Serve the annotators' page and print their links."""
    from motive.study.serving import links, serve_study

    def say(address: str) -> None:
        for name, link in links(study, address).items():
            print(f"{name}\t{link}")
        print(f"serving {study} on {address}; Ctrl-C ends it", flush=True)

    serve_study(study, host=host, port=port, public_url=public_url, database=database, ready=say)


@study_app.command("links")
def show_links(
    study: StudyArgument,
    add: Annotated[
        str | None, typer.Option(help="One more annotator, for pairs that others have left.")
    ] = None,
    renew: Annotated[
        str | None, typer.Option(help="A new link for this annotator; the old one ends.")
    ] = None,
    release: Annotated[
        str | None, typer.Option(help="Let others have this annotator's open pairs at once.")
    ] = None,
    public_url: PublicUrl = "http://127.0.0.1:8788",
    database: DatabaseUrl = None,
) -> None:
    """Every annotator's link and how far they are; add, renew or release one."""
    from motive.study.database import open_database
    from motive.study.design import read_design
    from motive.study.serving import links, public_address

    address = public_address(public_url or "")
    design = read_design(study)
    held = open_database(study, design, database)
    from motive.study import roster

    try:
        if release:
            roster.release(held, release)
        if renew:
            roster.renew(study, held, renew)
        if add:
            print(f"{add} gets {roster.add(study, held, design, add)} pairs")
        known = links(study, address)
        for one in roster.standings(held):
            print(f"{one.name}\t{one.done} of {one.total}\t{known.get(one.name, 'no link kept')}")
    finally:
        held.close()


@study_app.command()
def report(
    study: StudyArgument,
    out: Annotated[Path | None, typer.Option(help="Where to write; else the study.")] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=REASON", help="An annotator who is not to count; repeat it."),
    ] = None,
    database: DatabaseUrl = None,
) -> None:
    """Win, tie and loss of each pair of arms, with intervals, tests, agreement and ranking."""
    reasons = {}
    for text in exclude or []:
        name, found, reason = text.partition("=")
        if not found or not reason.strip():
            raise UserError(f"--exclude {text} gives no reason: write NAME=REASON")
        reasons[name] = reason.strip()
    from motive.study.report import report_study, report_text

    print(report_text(report_study(study, out=out, exclude=reasons, database=database)))


@study_app.command("import")
def import_file(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="CSV: annotator, prompt, arm_a, arm_b, choice.")
    ],
    study: StudyArgument,
    database: DatabaseUrl = None,
) -> None:
    """Take in judgements that were collected elsewhere; a new STUDY is made of them alone."""
    from motive.study.collected import import_judgements

    new, there = import_judgements(file, study, database=database)
    print(f"{new} judgements are new, {there} were there already")


def _arms(texts: list[str]) -> dict[str, Path]:
    arms: dict[str, Path] = {}
    for text in texts:
        name, found, folder = text.partition("=")
        if not found or not folder:
            raise UserError(f"--arm {text} names no folder: write NAME=DIR")
        if name in arms:
            raise UserError(f"--arm {name} is given twice: each arm needs a name of its own")
        arms[name] = Path(folder)
    return arms
