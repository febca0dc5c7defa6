"""Locks between processes, held by the kernel: a killed process has let go of them."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from motive.errors import UserError
from motive.runs.remote import RemotePath, RunPath, taken_away


@contextmanager
def locked(path: RunPath) -> Iterator[None]:
    """Hold the lock `path` alone, waiting for whoever has it; other threads are others too.

    On an object store there is none to hold: what is written there is whole, and the last one stays.

    The kernel holds it (`flock`), so that a killed process has let go of it, on this machine and, over
    NFS, on the others. The empty file stays: to remove it would let two in at once.

    Of the folders that it lies in only the last one is made, so that a run that was taken away is not
    begun anew in its place.

    Raises UserError where the file system knows no locks, and when the folder was taken away before or
    meanwhile: nothing says then where the block wrote. Raises OSError where it cannot be written.
    """
    if isinstance(path, RemotePath):
        yield
        return
    try:
        path.parent.mkdir(exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except FileNotFoundError:
        raise taken_away(path.parent) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            raise UserError(
                f"{path} cannot be locked ({error.strerror}): put the run on a file system with "
                "locks, such as a local disk or NFS 4"
            ) from None
        try:
            yield
        except Exception:
            if not _lies_at(path, descriptor):
                raise taken_away(path.parent) from None
            raise
        if not _lies_at(path, descriptor):
            raise taken_away(path.parent)
    finally:
        os.close(descriptor)  # which lets go of the lock


def _lies_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
