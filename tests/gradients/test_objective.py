"""The objective as a value: equal when everything is equal, and saying what is not."""

import dataclasses
import json
import re

import pytest

from motive.errors import UserError
from motive.gradients.objective import Objective, require_same

ONE = Objective(
    model="m", sampler="s", tracker="dis", mask="paper", mask_trusted=False, static_below=0.1,
    timesteps=(751,), noise_seed=0, prompt_length=512, parameters="*", length_factor=True,
    projection="fastfood", dim=512, projection_seed=0, dtype="float32",
)  # fmt: skip
OTHERS: dict[str, object] = {
    "model": "n", "sampler": "t", "tracker": "raft", "mask": "none", "mask_trusted": True,
    "static_below": 0.2, "timesteps": (751, 500), "noise_seed": 1, "prompt_length": 226,
    "parameters": "blocks.*", "length_factor": False, "projection": "identity", "dim": 256,
    "projection_seed": 1, "dtype": "bfloat16", "text_dtype": "bfloat16", "posterior": "sample",
    "denoiser": "transformer_2", "trainer": "musubi", "told": (752.0,), "weights": (0.5,),
    "train": "lora", "floor": 0.3, "average": "sums", "preconditioner": "0123456789abcdef",
}  # fmt: skip


def test_every_field_counts() -> None:
    assert OTHERS.keys() == {f.name for f in dataclasses.fields(Objective)}
    ids = {dataclasses.replace(ONE, **{name: value}).id for name, value in OTHERS.items()}  # type: ignore[arg-type]
    assert len(ids | {ONE.id}) == len(OTHERS) + 1
    assert len(ONE.id) == 16
    assert dataclasses.replace(ONE).id == ONE.id
    # Two timesteps are another objective in another order: the noise is drawn by their place.
    assert (
        dataclasses.replace(ONE, timesteps=(500, 751)).id
        != dataclasses.replace(ONE, timesteps=(751, 500)).id
    )


def test_json_and_back() -> None:
    several = dataclasses.replace(ONE, timesteps=(751, 500), static_below=1 / 3)
    for objective in (ONE, several):
        again = Objective.from_json(objective.to_json())
        assert again == objective
        assert again.id == objective.id


def test_fields_that_came_later_leave_the_older_ids_as_they_are() -> None:
    content = json.loads(ONE.to_json())
    later = {"trainer", "told", "weights", "train", "floor", "average", "preconditioner"}
    assert content.keys() == OTHERS.keys() - later
    assert Objective.from_json(json.dumps(content)) == ONE
    trainers = dataclasses.replace(ONE, trainer="musubi", told=(752.0,), weights=(0.5,))
    assert json.loads(trainers.to_json()).keys() - content.keys() == {"trainer", "told", "weights"}
    assert Objective.from_json(trainers.to_json()) == trainers


@pytest.mark.parametrize("name", OTHERS)
def test_the_error_names_the_field_and_both_values(name: str) -> None:
    other = dataclasses.replace(ONE, **{name: OTHERS[name]})  # type: ignore[arg-type]
    with pytest.raises(UserError) as error:
        require_same(ONE, other, mine_is="the clips", other_is="the queries")
    message = str(error.value)
    mine = getattr(ONE, name)
    assert f"{name} is {mine} for the clips and {OTHERS[name]} for the queries" in message
    assert " is " in message
    named = [field for field in OTHERS if re.search(rf"(?<![a-z_]){field} is ", message)]
    assert named == [name]
    assert ". " not in message


def test_equal_objectives_may_meet() -> None:
    require_same(ONE, dataclasses.replace(ONE), mine_is="a", other_is="b")
    assert ONE.differences(ONE) == {}
    other = dataclasses.replace(ONE, dim=8, noise_seed=3)
    assert ONE.differences(other) == {"dim": (512, 8), "noise_seed": (0, 3)}


def test_features_of_one_length_share_a_table_and_whole_gradients_have_their_own() -> None:
    assert ONE.feature_table == f"features-{ONE.dim}"
    whole = dataclasses.replace(ONE, projection="identity")
    assert (whole.feature_table, whole.feature_length) == ("features-whole", None)
    assert dataclasses.replace(ONE, dim=64).feature_length == 64
