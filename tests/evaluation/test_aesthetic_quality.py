"""aesthetic_quality against VBench's golden vectors, and the head's file."""

from pathlib import Path

import pytest
import torch
from vbench_goldens import StoredFeatures, arrays, blank, numbers

from motive.errors import UserError
from motive.evaluation.aesthetic_quality import AestheticQuality
from motive.evaluation.catalog import DIMENSIONS
from motive.evaluation.networks.aesthetic_head import AestheticHead, read_head
from motive.evaluation.networks.choice import MissingNetworkError


def test_scores_are_vbenchs(shared: Path, tmp_path: Path) -> None:
    stored, expected = arrays(shared, "aesthetic_quality"), numbers(shared, "aesthetic_quality")
    # As LAION's file is: a linear layer's own state dict.
    linear = torch.nn.Linear(768, 1)
    linear.weight.data = torch.from_numpy(stored["weight"])[None]
    linear.bias.data = torch.from_numpy(stored["bias"])[None]
    torch.save(linear.state_dict(), tmp_path / "head.pth")
    head = read_head(tmp_path / "head.pth")
    scores, batches = [], []
    for case in expected["cases"]:
        network = StoredFeatures(stored[f"case{case['case']}_features"])
        scores.append(AestheticQuality(network, head).score(blank(case["T"])))
        batches += network.batches
        assert scores[-1].value == pytest.approx(case["score"], abs=1e-5)
    assert batches == expected["batches"]
    found = DIMENSIONS["aesthetic_quality"].aggregate(scores)
    assert found == pytest.approx(expected["aggregate"], abs=1e-5)


def test_a_head_is_known_by_its_weights() -> None:
    one, same, other = (AestheticHead(torch.ones(4) * v, 0.5) for v in (1, 1, 2))
    assert one.identity == same.identity != other.identity


def test_what_is_no_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingNetworkError, match="no aesthetic head was given"):
        read_head(None)
    with pytest.raises(UserError, match="there is no file"):
        read_head(tmp_path / "none.pth")
    torch.save(torch.nn.Linear(4, 2).state_dict(), tmp_path / "two.pth")
    with pytest.raises(UserError, match="no linear head with one output"):
        read_head(tmp_path / "two.pth")
    with pytest.raises(UserError, match="takes 4 features and not 3"):
        AestheticHead(torch.ones(4), 0.0)(torch.ones(2, 3))
