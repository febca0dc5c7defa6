"""From arms' folders of videos to a study's folder, which needs nothing else."""

import random
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from motive.errors import ClipError, UserError
from motive.generation.prompts import read_prompts, require_names, video_name
from motive.runs.progress import Progress
from motive.study.database import Database, database_url
from motive.study.design import (
    DESIGN_FILE,
    DRAFT_FILE,
    TIE,
    VIDEO_FOLDER,
    Check,
    Design,
    Pair,
    Rules,
    parse_design,
)
from motive.study.judging import new_id
from motive.study.roster import check_name, fill, make_tokens
from motive.study.videos import copy_standing, copy_video, moves_plainly, outline

Source = tuple[str, str, int]  # arm, prompt, seed


def create_study(
    out: Path,
    arms: dict[str, Path],
    prompts_file: Path,
    rules: Rules,
    *,
    annotators: Sequence[str],
    against: str | None = None,
    seeds: int | None = None,
    checks: int = 5,
    database: str | None = None,
    progress: Progress | None = None,
) -> Design:
    """Make a study in a new folder; an interrupted one is taken up where it was.

    arms: folders with a video `PROMPT-i.mp4` (VBench's naming) for each prompt and i below `seeds`.
    against: the arm that every other one is compared with; None compares all with all. In a pair the
        arm that is named later comes first, and the one of `against` second, so that wins are the new
        arm's.
    seeds: videos of a prompt; None takes as many as there are.
    checks: attention checks that every annotator gets.
    database: URL of a database server; None keeps the judgements in the folder.

    Raises UserError for a missing video, which it names, and for settings that make no study.
    """
    progress = progress or Progress(quiet=True)
    _require(arms, rules, annotators, against)
    prompts = list(dict.fromkeys(read_prompts(prompts_file)))
    sources = _find_videos(arms, prompts, seeds)
    wanted = Design(
        id=new_id(),
        arms={name: str(folder.resolve()) for name, folder in arms.items()},
        rules=rules,
        pairs=_pairs(list(arms), against, sources),
        annotators=tuple(annotators),
        database="url" if database else "sqlite",
    )
    design = _draft(out, wanted, sources, checks, progress)
    _say_what_differs(design, sources, progress)
    _copy(out, design, sources, progress)
    tokens = make_tokens(out, list(design.annotators))
    held = Database(database_url(out, design.database, database))
    try:
        fill(held, design, tokens)
    finally:
        held.close()
    (out / DRAFT_FILE).replace(out / DESIGN_FILE)
    return design


def _require(
    arms: dict[str, Path], rules: Rules, annotators: Sequence[str], against: str | None
) -> None:
    if len(arms) < 2:
        raise UserError("a study compares arms: give --arm NAME=DIR at least twice")
    for name, folder in arms.items():
        if name == TIE or not name.strip() or not name.isprintable():
            raise UserError(f"{name!r} cannot name an arm: choose another name")
        if not folder.is_dir():
            raise UserError(f"{folder} (arm {name}) is no folder: name the one with its videos")
    if against is not None and against not in arms:
        raise UserError(f"--against {against} is no arm: choose from {', '.join(arms)}")
    for name in annotators:
        check_name(name)
    if len(set(annotators)) < len(annotators):
        raise UserError("two annotators have one name: give each their own")
    if rules.seed < 0:
        raise UserError(f"the seed {rules.seed} is below 0: give --seed a number from 0 on")
    if not annotators:
        raise UserError("nobody is to judge: give --annotators")
    if rules.per_pair > len(annotators):
        raise UserError(
            f"{len(annotators)} annotators cannot judge each pair {rules.per_pair} times: "
            f"give more --annotators or a smaller --per-pair"
        )


def _find_videos(
    arms: dict[str, Path], prompts: list[str], seeds: int | None
) -> dict[Source, Path]:
    """Every arm's video of every prompt and seed."""
    if seeds is None:
        require_names(prompts, 1)
        seeds = 1 + max((_last_index(folder, prompts) for folder in arms.values()), default=0)
    require_names(prompts, seeds)
    found, missing = {}, []
    for name, folder in arms.items():
        for prompt in prompts:
            for seed in range(seeds):
                path = folder / video_name(prompt, seed)
                found[name, prompt, seed] = path
                if not path.is_file():
                    missing.append(path)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(f"{missing[0]} is missing{more}: every arm needs every video")
    return found


def _last_index(folder: Path, prompts: list[str]) -> int:
    known = set(prompts)
    last = 0
    for path in folder.glob("*.mp4"):
        prompt, _, index = path.stem.rpartition("-")
        if prompt in known and index.isdecimal():
            last = max(last, int(index))
    return last


def _pairs(arms: list[str], against: str | None, sources: dict[Source, Path]) -> tuple[Pair, ...]:
    if against is None:
        compared = [(later, earlier) for earlier, later in combinations(arms, 2)]
    else:
        compared = [(arm, against) for arm in arms if arm != against]
    name = {source: new_id() for source in sources}
    shown = [(prompt, seed) for arm, prompt, seed in sources if arm == arms[0]]
    return tuple(
        Pair(
            id=new_id(),
            prompt=prompt,
            seed=seed,
            arm_a=a,
            arm_b=b,
            video_a=name[a, prompt, seed],
            video_b=name[b, prompt, seed],
        )
        for a, b in compared
        for prompt, seed in shown
    )


def _draft(
    out: Path, wanted: Design, sources: dict[Source, Path], checks: int, progress: Progress
) -> Design:
    """The design that is written before anything else, or the one that an earlier attempt wrote."""
    if (out / DESIGN_FILE).exists():
        raise UserError(f"{out} holds a study already: give --out another folder")
    path = out / DRAFT_FILE
    if path.is_file():
        begun = parse_design(path)
        if _settings(begun) != _settings(wanted) or len(begun.checks) != checks:
            raise UserError(
                f"{out} was begun with other settings: repeat that command or give --out another folder"
            )
        return begun
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not empty: give --out a new folder")
    design = wanted.model_copy(update={"checks": _checks(wanted, sources, checks, progress)})
    (out / VIDEO_FOLDER).mkdir(parents=True, exist_ok=True)
    design.write(path)
    return design


def _settings(design: Design) -> dict[str, object]:
    """What of a design was asked for, without the names drawn for it."""
    ids = {"id", "video_a", "video_b"}
    return design.model_dump(exclude={"id": True, "checks": True, "pairs": {"__all__": ids}})


def _checks(
    design: Design, sources: dict[Source, Path], count: int, progress: Progress
) -> tuple[Check, ...]:
    """Videos in random order that can plainly be told from their own first frame."""
    videos = sorted(_originals(design, sources).items(), key=lambda item: str(item[1]))
    random.Random(f"checks {design.rules.seed}").shuffle(videos)
    chosen: list[Check] = []
    with progress.stage("checks", count) as advance:
        for video, path in videos:
            if len(chosen) == count:
                break
            try:
                plain = moves_plainly(path)
            except ClipError as error:
                raise UserError(f"{path} {error}: make it again") from None
            if plain:
                chosen.append(Check(id=new_id(), video_a=video, video_b=new_id()))
                advance(path.name)
    if len(chosen) < count:
        raise UserError(
            f"only {len(chosen)} of the videos move enough for an attention check: "
            f"give --checks {len(chosen)}"
        )
    return tuple(chosen)


def _originals(design: Design, sources: dict[Source, Path]) -> dict[str, Path]:
    """The arms' file behind each name of a video, checks' copies apart."""
    found = {}
    for pair in design.pairs:
        for arm, video in zip(pair.arms, (pair.video_a, pair.video_b), strict=True):
            assert video is not None
            found[video] = sources[arm, pair.prompt, pair.seed]
    return found


def _say_what_differs(design: Design, sources: dict[Source, Path], progress: Progress) -> None:
    """Size and length can give an arm away, and only the organiser can mend that."""
    originals = _originals(design, sources)
    outlines = {}
    for video, path in originals.items():
        try:
            outlines[video] = outline(path)
        except ClipError as error:
            raise UserError(f"{path} {error}: make it again") from None
    unlike = [p for p in design.pairs if outlines[str(p.video_a)] != outlines[str(p.video_b)]]
    if unlike:
        progress.say(
            f"note: in {len(unlike)} of {len(design.pairs)} pairs the two videos differ in size or length, "
            f"which may tell the arms apart (as for '{unlike[0].prompt}', {' and '.join(unlike[0].arms)})"
        )


def _copy(out: Path, design: Design, sources: dict[Source, Path], progress: Progress) -> None:
    """Anonymous copies of all videos, in an order that says nothing; those that are there stay."""
    originals = _originals(design, sources)
    jobs = {video: (copy_video, path) for video, path in originals.items()}
    jobs |= {check.video_b: (copy_standing, originals[check.video_a]) for check in design.checks}
    with progress.stage("copy", len(jobs)) as advance:
        for video, (copy, path) in sorted(jobs.items()):
            target = out / VIDEO_FOLDER / f"{video}.mp4"
            if not target.exists():
                try:
                    copy(path, target)
                except ClipError as error:
                    raise UserError(f"{path} {error}: make it again") from None
            advance(path.name)
