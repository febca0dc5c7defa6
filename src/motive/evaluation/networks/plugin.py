"""A user's own network for a dimension, from a file outside the package.

Only a file that the user names is imported. Its class is called with the device's name and gives a
network of the dimension's protocol (`motive.evaluation.networks.protocols`).
"""

import importlib.util
import inspect
import sys
from pathlib import Path
from typing import Any

from motive.backbones.device import find_device
from motive.backbones.source import file_digest
from motive.errors import UserError
from motive.evaluation.networks.choice import Networks
from motive.motion.weights import first_line


class Plugin:
    """A user's network, known by its own identity, its class and its file's digest.

    where: `FILE.PY:CLASS`.

    Raises UserError when there is no such class, or it cannot be made.
    """

    def __init__(self, where: str, device: str) -> None:
        file, name = _place(where)
        self._network = _make(file, name, str(find_device(device)))
        self.identity = f"plug-in {name} {self._network.identity} file={file_digest(file)}"

    def __call__(self, *tensors: Any) -> Any:
        return self._network(*tensors)


def user_network(networks: Networks, dimension: str) -> Any:
    """The user's own network of a dimension, or None. Raises UserError as `Plugin`."""
    where = networks.plugins.get(dimension)
    return None if where is None else Plugin(where, networks.device)


def parse_plugins(words: list[str]) -> dict[str, str]:
    """`DIMENSION=FILE.PY:CLASS` of each.

    Raises UserError for another form.
    """
    found = {}
    for word in words:
        dimension, equals, where = word.partition("=")
        if not (dimension and equals and where):
            raise UserError(
                f"the plug-in '{word}' is wrong: write DIMENSION=FILE.PY:CLASS, as in "
                "motion_smoothness=amt.py:Amt"
            )
        found[dimension] = where
    return found


def _place(where: str) -> tuple[Path, str]:
    path, colon, name = where.rpartition(":")
    file = Path(path).expanduser()
    if not colon or not name.isidentifier() or file.suffix != ".py":
        raise UserError(f"the plug-in '{where}' is wrong: write FILE.PY:CLASS, as in amt.py:Amt")
    if not file.is_file():
        raise UserError(f"there is no file {file}: give --plugin the path of your network's file")
    return file.resolve(), name


def _make(file: Path, name: str, device: str) -> Any:
    # Dataclasses look their module up by name; files of one name in two folders are two modules.
    module_name = f"motive_network_{file_digest(file)}"
    spec = importlib.util.spec_from_file_location(module_name, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[module_name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        cls: Any = getattr(module, name, None)
        is_class = inspect.isclass(cls)
        network = cls(device) if is_class else None
    # Whatever goes wrong in the user's file is the user's to know.
    except Exception as error:
        raise UserError(
            f"the plug-in {file}:{name} cannot be made ({type(error).__name__}: "
            f"{first_line(error)}): correct it"
        ) from error
    if (
        network is None
        or not callable(network)
        or not isinstance(getattr(network, "identity", None), str)
    ):
        raise UserError(
            f"{file} has no class {name} that can be called and has an identity: "
            "see docs/evaluation.md"
        )
    return network
