"""What a selection method gives."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Subset:
    """Clips to train on.

    name: the method's name, or the path of the list that the clips were read from.
    clip_ids: best first, each once.
    note: how they were chosen, in one sentence for people.
    """

    name: str
    clip_ids: tuple[str, ...]
    note: str
