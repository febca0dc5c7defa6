"""A real Ray cluster for tests: two CPUs of this machine."""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

# The cluster lets in who knows its word. Set when tests begin, for every process that they start.
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(16)
os.environ.pop("RAY_ADDRESS", None)


@contextmanager
def ray_cluster(environment: Mapping[str, str]) -> Iterator[str]:
    """The address of a cluster, as long as the block lasts.

    environment: variables of its machine, beside this process's own.

    Without Ray these tests skip, but where CI is set they fail.
    """
    if find_spec("ray") is None:
        if os.environ.get("CI"):
            pytest.fail("ray is not installed, and CI is set")
        pytest.skip("ray is not installed")
    folder = tempfile.mkdtemp(
        prefix="r", dir="/tmp"
    )  # sockets lie below, whose paths must be short
    command = [sys.executable, str(Path(__file__).with_name("ray_head.py")), folder, "2"]
    head = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            **environment,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",  # as the driver; Ray's 15 starves them beside other tests
            "PYTHONPATH": str(Path(__file__).with_name("runs")),  # stages that tests define
        },
    )
    assert head.stdin is not None
    assert head.stdout is not None
    try:
        for line in head.stdout:
            if line.startswith("address "):
                yield line.split()[1]
                break
        else:
            raise AssertionError("the cluster did not start")
    finally:
        if "ray" in sys.modules:
            sys.modules["ray"].shutdown()  # Ray ends a process whose cluster goes away under it
        head.stdin.close()
        try:
            head.wait(60)
        except subprocess.TimeoutExpired:
            head.kill()
        shutil.rmtree(folder, ignore_errors=True)
