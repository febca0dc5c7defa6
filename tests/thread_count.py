"""How many threads a piece of work starts."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

Made = TypeVar("Made")


def threads_of(work: Callable[[], Made]) -> tuple[int, Made]:
    """The most threads of this process that were seen beside those of before, and what the work made.

    The work has one of its own, which is counted. Native threads are counted too.
    """
    tasks = Path("/proc/self/task")
    if not tasks.is_dir():
        pytest.skip("threads can be counted on Linux alone")
    before, most = len(os.listdir(tasks)), 0
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(work)
        while not made.done():
            most = max(most, len(os.listdir(tasks)))
        return most - before, made.result()
