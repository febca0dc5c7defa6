"""Fixtures that several test modules share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of clips, specifications and golden vectors that lies beside the checkout.

    Users do not have it: without it these tests skip, but where CI is set its absence is a failure.
    """
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"{folder} is missing, and CI is set")
        pytest.skip(f"{folder} is not there")
    return folder
