"""Sharing a compiled kernel's work among threads, so that their number changes no result.

Not numba's threads: its portable layer aborts the process when two threads use it at once, and its
OpenMP layer does so after a fork. The kernels release the interpreter's lock, so ordinary threads
do. Their number is torch's (`torch.set_num_threads`).
"""

import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

PARALLEL_FROM = 1 << 18  # below this many numbers, waking a thread costs more than it saves

_pools = threading.local()


def _pool(helpers: int) -> ThreadPoolExecutor:
    """This thread's pool of `helpers` threads, in this process (a fork does not carry threads)."""
    made_for = (os.getpid(), helpers)
    if getattr(_pools, "made_for", None) != made_for:
        _pools.pool = ThreadPoolExecutor(helpers, thread_name_prefix="motive-project")
        _pools.made_for = made_for
    return _pools.pool


def over_strips(task: Callable[[int, int], bool], length: int, block: int, work: int) -> bool:
    """Call task(lo, hi) on strips that cover 0..length; whether all of them said True.

    The strips are shared out as threads come free, this thread working too, so that a helper whose
    core is busy delays nothing but its own strip. How many strips there are must not matter to the
    result: what a task writes belongs to one strip, and is made in an order of its own.

    Args:
        task: works on lo..hi, lo a multiple of `block`.
        work: the numbers that are read in all; few of them are not worth waking a thread.
    """
    if work < PARALLEL_FROM:
        return task(0, length)
    threads = torch.get_num_threads()
    # Two strips for each thread: one may lag, and what the fold prefetches fits beside its sums.
    blocks = -(-length // block)
    width = block * -(-blocks // (2 * threads))
    waiting = deque((lo, min(lo + width, length)) for lo in range(0, length, width))

    def work_off() -> bool:
        good = True
        while True:
            try:
                lo, hi = waiting.popleft()
            except IndexError:
                return good
            good &= task(lo, hi)

    helpers = [_pool(threads - 1).submit(work_off) for _ in range(min(threads, len(waiting)) - 1)]
    good = work_off()
    # A helper that has not started by now has nothing left to do.
    results = [helper.result() for helper in helpers if not helper.cancel()]
    return good and all(results)
