"""Where a run lies: in a folder of this machine, or below an address of an object store.

A run asks few things of its folder, and `RemotePath` answers them with the names that `pathlib.Path` has,
so that what keeps a run's files need not ask which of the two it has. fsspec and the store's own package
do the work; Lance reads and writes the tables by the address itself.
"""

import hashlib
import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast

from motive.errors import UserError
from motive.runs.processes import part_name

# The package through which fsspec reaches each kind of store. Only s3 is tested.
PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}


class RemotePath:
    """An object of a store, or the folder that objects seem to lie in.

    Writing one is atomic: an object is there whole or not at all.

    Every method raises UserError, in one sentence, when the store cannot be reached or refuses. That is
    why it is not fsspec's or universal_pathlib's path: their `is_file` takes every error for "not there",
    and a run would be begun anew because of a network that was away for a moment.
    """

    def __init__(self, address: str) -> None:
        scheme, _, rest = address.partition("://")
        self._scheme, self._key = scheme, rest.strip("/")

    @property
    def name(self) -> str:
        return self._key.rpartition("/")[2]

    @property
    def parent(self) -> "RemotePath":
        return RemotePath(f"{self._scheme}://{self._key.rpartition('/')[0] or self._key}")

    def __truediv__(self, name: str) -> "RemotePath":
        return RemotePath(f"{self}/{name}")

    def __str__(self) -> str:
        return f"{self._scheme}://{self._key}"

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def resolve(self) -> "RemotePath":
        """Itself: an address is absolute."""
        return self

    def is_file(self) -> bool:
        """Whether there is such an object."""
        return self._kind() == "file"

    def exists(self) -> bool:
        """Whether there is such an object, or one below it."""
        return bool(self._kind())

    def _kind(self) -> str:
        """`file`, `directory` for what has objects below it, or nothing."""
        with _asked(self, "read"):
            try:
                return str(self._store.info(self._key)["type"])
            except FileNotFoundError as error:
                if _says(error, "NoSuchBucket"):
                    raise
                return ""

    def children(self) -> "list[RemotePath]":
        """What lies directly below, by name."""
        with _asked(self, "read"):
            try:
                names = self._store.ls(self._key, detail=False)
            except FileNotFoundError:
                return []
        return [self / name.rpartition("/")[2] for name in sorted(names)]

    def read_bytes(self) -> bytes:
        """Raises UserError, as `read_text` and `open` do, also when there is no such object."""
        with _asked(self, "read"):
            return cast(bytes, self._store.cat_file(self._key))

    def read_text(self, encoding: str = "utf-8") -> str:
        with self.open(encoding=encoding) as file:
            return file.read()

    def open(self, *, newline: str | None = None, encoding: str = "utf-8") -> io.TextIOWrapper:
        """The object's text, to be read."""
        return io.TextIOWrapper(io.BytesIO(self.read_bytes()), encoding=encoding, newline=newline)

    def open_parts(self) -> BinaryIO:
        """The object's bytes, of which only those that are read are fetched."""
        with _asked(self, "read"):
            return cast(BinaryIO, self._store.open(self._key, "rb"))

    def write_bytes(self, content: bytes) -> None:
        with _asked(self, "written"):
            self._store.pipe_file(self._key, content)

    def create(self, content: bytes) -> bool:
        """Write the object unless it is there; whether it was not. Of several who try, one succeeds."""
        with _asked(self, "written"):
            try:
                self._store.pipe_file(self._key, content, mode="create")
            except FileExistsError:
                return False
            return True

    def upload(self, file: Path) -> None:
        """Write the content of a file of this machine, however long it is."""
        with _asked(self, "written"):
            self._store.put_file(str(file), self._key)

    def lance_options(self) -> dict[str, str]:
        """What Lance must be told of the store, so that the tables lie where the other files do.

        Credentials are not among them: Lance looks for them itself, in the same places, and asks again
        when they expire.
        """
        if self._scheme != "s3":
            return {}
        with _asked(self, "read"):
            client = self._store.s3.meta  # which knows the environment and the profile
        if ".amazonaws.com" in client.endpoint_url:
            return {}  # where Lance asks for the bucket's region, which is better than a default
        options = {
            "aws_region": client.region_name or "us-east-1",
            "aws_endpoint": client.endpoint_url,
        }
        if client.endpoint_url.startswith("http://"):
            options["allow_http"] = "true"
        return options

    @property
    def _store(self) -> Any:
        import fsspec

        # What was listed a minute ago may have changed: another machine may work on the run.
        return fsspec.filesystem(self._scheme, use_listings_cache=False)


RunPath: TypeAlias = Path | RemotePath


def run_path(where: str | Path | RemotePath) -> RunPath:
    """The place that a user names: a folder, or an address such as `s3://bucket/runs/mine`.

    Raises UserError for a kind of address that cannot hold a run, or whose package is not installed.
    """
    if isinstance(where, RemotePath):
        return where
    scheme, there, rest = str(where).partition("://")
    if isinstance(where, Path):
        if where.parts[:1] in [(f"{name}:",) for name in PACKAGES]:
            raise UserError(f"{where} was an address once, and no Path: give it as a string")
        return where
    if not there:
        return Path(where)
    if scheme not in PACKAGES:
        known = ", ".join(f"{name}://" for name in PACKAGES)
        raise UserError(f"{where} is no place for a run: give a folder, or an address of {known}")
    if "/" not in rest.strip("/"):
        example = f"{scheme}://{rest.strip('/') or 'bucket'}/run"
        raise UserError(f"{where} names a whole bucket: give a folder in it, as in {example}")
    if find_spec(PACKAGES[scheme]) is None:
        how = "motive-attribution[s3]" if scheme == "s3" else PACKAGES[scheme]
        raise UserError(f"{where} needs a package that is not installed: pip install '{how}'")
    return RemotePath(where)


def on_disk(path: RunPath) -> Path:
    """The folder of a run that lies on this machine's disk.

    Raises UserError for one on an object store.
    """
    if isinstance(path, RemotePath):
        raise UserError(
            f"{path} lies on an object store, and this works on a disk alone: copy the run to a folder "
            f"and name that one, as with aws s3 sync {path} {path.name}"
        )
    return path


@contextmanager
def whole_file(path: RunPath) -> Iterator[Path]:
    """A file of this machine to write to, which becomes `path` when the block ends, or nothing.

    Beside it, where `path` is on a disk; for an object store, in the system's folder for such files.

    Raises UserError when the folder is taken away meanwhile.
    """
    if isinstance(path, RemotePath):
        with tempfile.TemporaryDirectory(prefix="motive-") as folder:
            part = Path(folder) / path.name
            yield part
            path.upload(part)
        return
    part = path.with_name(part_name(path.name))
    try:
        yield part
        os.replace(part, path)
    except FileNotFoundError as error:
        if error.filename != str(part):
            raise
        raise taken_away(path) from None
    finally:
        part.unlink(missing_ok=True)


def taken_away(path: RunPath) -> UserError:
    """What to raise when the folder of a run's file is no longer where it was."""
    return UserError(
        f"{path} is gone: its folder was moved or removed meanwhile; "
        "put it back and run the same command again"
    )


def cache_folder(path: RunPath, name: str) -> Path:
    """Where a run keeps files that must lie on a disk: in its own folder if that is on one."""
    if isinstance(path, Path):
        return path / name
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    address = hashlib.blake2b(str(path).encode(), digest_size=8).hexdigest()
    return cache / "motive" / f"{path.name}-{address}" / name


@contextmanager
def _asked(path: RemotePath, done: str) -> Iterator[None]:
    """Whatever the store's package raises, as one sentence."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path} cannot be {done}: {_reason(path, error)}") from None


def _reason(path: RemotePath, error: Exception) -> str:
    bucket = str(path).split("/")[2]
    kind = type(error).__name__
    text = str(error).strip().splitlines()[0][:200].rstrip(".") if str(error).strip() else kind
    if "Credentials" in kind or "NoAuth" in kind:
        return (
            f"no credentials were found ({text}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or AWS_PROFILE"
        )
    if isinstance(error, FileNotFoundError):
        if _says(error, "NoSuchBucket"):
            return f"there is no bucket {bucket}; make it, or correct the address"
        return "it is not there"
    if isinstance(error, PermissionError):
        return f"the store refuses ({text}); docs/scaling.md lists the rights that a run needs"
    if "Connect" in kind or "Timeout" in kind or isinstance(error, ConnectionError | TimeoutError):
        return f"the store does not answer ({text}); look at the network and at AWS_ENDPOINT_URL"
    return f"{text}; what was done is kept, run the same command again when the store is well"


def _says(error: BaseException | None, code: str) -> bool:
    """Whether the store's answer, from which the error was made, had this code."""
    while error is not None:
        answer = getattr(error, "response", None)
        if isinstance(answer, dict) and answer.get("Error", {}).get("Code") == code:
            return True
        error = error.__cause__ or error.__context__
    return False
