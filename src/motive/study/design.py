"""What a study is: arms, pairs, attention checks, and the rules of its report, set before it begins."""

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from motive.errors import UserError
from motive.runs.provenance import write_atomically

QUESTION = "Which video moves better?"
DESIGN_FILE = "study.json"
DRAFT_FILE = "draft.json"
VIDEO_FOLDER = "videos"
TIE = "tie"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Pair(_Frozen):
    """Two arms' videos of one prompt and seed.

    arm_a, arm_b: names of the arms; wins and losses are counted from arm_a's side.
    video_a, video_b: names of the files in the study's folder, without ending; None in a study that is
        made of judgements collected elsewhere.
    """

    id: str
    prompt: str
    seed: int
    arm_a: str
    arm_b: str
    video_a: str | None = None
    video_b: str | None = None

    @property
    def arms(self) -> tuple[str, str]:
        return self.arm_a, self.arm_b


class Check(_Frozen):
    """An attention check: a video beside a copy of it that stands still. The first is the right answer."""

    id: str
    video_a: str
    video_b: str


class Rules(_Frozen):
    """What was decided before the first judgement.

    per_pair: judgements that each pair is to get.
    pass_share: share of the checks that an annotator must answer rightly to be counted.
    preference: the share of arm_a (a tie is half) that the study should be able to tell from 1/2.
    handover_hours: pairs of an annotator who has not been seen for so long may go to another.
    seed: of the shares, sides and orders.
    """

    question: str = QUESTION
    per_pair: int = Field(ge=1)
    pass_share: float = Field(0.8, ge=0, le=1)
    preference: float = Field(0.6, gt=0.5, lt=1)
    handover_hours: float = Field(48.0, gt=0)
    seed: int = 0


class Design(_Frozen):
    """All of a study that does not change.

    arms: folder of each arm's videos, by name; empty for judgements collected elsewhere.
    annotators: names of those among whom the pairs were shared out.
    database: `sqlite` for the file in the study's folder, `url` for a server that is named by its URL.
    """

    id: str
    arms: dict[str, str]
    rules: Rules
    pairs: tuple[Pair, ...]
    checks: tuple[Check, ...] = ()
    annotators: tuple[str, ...] = ()
    database: Literal["sqlite", "url"] = "sqlite"

    @property
    def arm_pairs(self) -> list[tuple[str, str]]:
        """The pairs of arms that are compared, in the order of the design."""
        return list(dict.fromkeys(pair.arms for pair in self.pairs))

    @property
    def has_videos(self) -> bool:
        return all(pair.video_a is not None for pair in self.pairs)

    @property
    def items(self) -> list[Pair | Check]:
        """Pairs and checks: all that is shown."""
        return [*self.pairs, *self.checks]

    def write(self, path: Path) -> None:
        """As JSON, whole or not at all."""
        write_atomically(path, self.model_dump_json(indent=1) + "\n")


def read_design(study: Path) -> Design:
    """The design of the study in a folder.

    Raises UserError when there is none, or when its creation was interrupted.
    """
    path = study / DESIGN_FILE
    if not path.is_file():
        if (study / DRAFT_FILE).is_file():
            raise UserError(f"{study} is half made: run the same motive study command again")
        raise UserError(f"{study} is no study: make one with motive study create")
    return parse_design(path)


def parse_design(path: Path) -> Design:
    """A design from its file; raises UserError when the file is damaged."""
    try:
        return Design.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (ValidationError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path} is not a study's design ({reason}): restore or recreate it"
        ) from None
