"""The fold's CUDA kernel, as far as a machine without a GPU can tell: its numbers and its code."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from motive.gradients import fold

pytest.importorskip("triton", reason="Triton is not installed: see the extra `cuda`")

CASES = Path(__file__).with_name("fold_triton_cases.py")


def run(*arguments: str, interpret: bool) -> str:
    environment = {**os.environ, "TRITON_INTERPRET": "1" if interpret else "0"}
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_kernel_gives_the_numbers_of_the_cpu_in_tritons_interpreter() -> None:
    printed = run("-m", "pytest", "-p", "no:cacheprovider", str(CASES), interpret=True)
    assert "skipped" not in printed
    assert int(re.search(r"(\d+) passed", printed + " 0 passed").group(1)) > 0  # type: ignore[union-attr]


COMPILE = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from motive.gradients.fold_triton import fold_laps

pointers = {"total": "*fp64", "partial": "*fp32", "not_finite": "*i32", "numbers": sys.argv[1]}
scalars = {"stream": "u64", "size": "i32", "first_lap": "i32", "offset": "i32", "period": "i32"}
for last in (True, False):
    source = triton.compiler.ASTSource(
        fn=fold_laps,
        signature={**pointers, **scalars, "first": "constexpr", "last": "constexpr"},
        constexprs={"first": last, "last": last},
    )
    target = GPUTarget("cuda", int(sys.argv[2]), 32)
    print(triton.compile(source, target=target, options={"num_warps": 1}).asm["ptx"])
"""


@pytest.mark.parametrize(("dtype", "capability"), [("*fp32", "90"), ("*bf16", "80")])
def test_kernel_compiles_to_plain_ordered_additions(
    dtype: str, capability: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    code = run("-c", COMPILE, dtype, capability, interpret=False)
    assert code.count(".visible .entry fold_laps") == 2
    # 8 laps of 2 accumulators a thread, twice; rounded to nearest, subnormals kept, nothing fused.
    additions = re.findall(r"\b(?:add|sub|fma)\S*\.f32(?:x2)?\b", code)
    assert len(additions) >= 16
    assert set(additions) <= {"add.f32", "add.rn.f32", "sub.f32", "sub.rn.f32"}
    assert not re.search(r"\b(atom|red)\.", code)


def test_without_a_triton_that_works_torch_operations_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    find = fold._triton_fold.__wrapped__
    # Installed, but it compiles for GPUs: given the CPU it raises, as it does without a C compiler.
    with pytest.warns(UserWarning, match=r"Triton does not run on cpu .*the same numbers"):
        assert find(torch.device("cpu")) is None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert find(torch.device("cpu")) is None
