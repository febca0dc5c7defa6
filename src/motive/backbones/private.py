"""Adapters that a user has written for a model of their own, in a file outside the package.

Only a file that the user names is imported: with `motive --adapter FILE.PY:CLASS`, with the environment
variable MOTIVE_ADAPTER, or with `use_adapter`. No run directory, model folder or dataset names code.
"""

import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType

from motive.backbones.base import Backbone
from motive.backbones.source import file_digest
from motive.errors import UserError

_NEEDED = ("family", "pipeline_classes", "components", "denoiser")

# By pipeline class; they come before the package's own.
named: dict[str, type[Backbone]] = {}


def use_adapter(where: str) -> type[Backbone]:
    """Import an adapter and take it for the pipeline classes that it says it is for.

    where: `path/to/file.py:Class`.

    Raises UserError when there is no such file or class, when the file cannot be imported, or when the
    class is no whole adapter.
    """
    path, colon, name = where.rpartition(":")
    file = Path(path).expanduser()
    if not colon or not name.isidentifier() or file.suffix != ".py":
        raise UserError(f"the adapter '{where}' is wrong: write FILE.PY:CLASS, as in my.py:MyModel")
    if not file.is_file():
        raise UserError(f"there is no file {file}: give --adapter the path of your adapter")
    adapter = getattr(_imported(file), name, None)
    if not (inspect.isclass(adapter) and issubclass(adapter, Backbone)):
        raise UserError(
            f"{file} has no class {name} that is a motive.backbones.base.Backbone: see docs/adapters.md"
        )
    lacks = sorted(adapter.__abstractmethods__)
    lacks += [attribute for attribute in _NEEDED if not hasattr(adapter, attribute)]
    if lacks:
        raise UserError(f"the adapter {where} lacks {', '.join(lacks)}: see docs/adapters.md")
    for pipeline_class in adapter.pipeline_classes:
        named[pipeline_class] = adapter
    return adapter


def code_digest(adapter: type[Backbone]) -> str:
    """Of a named adapter's file, 32 hex digits; empty for the package's own.

    Features are made by an adapter's code as much as by the model's weights.
    """
    if adapter not in named.values():
        return ""
    return file_digest(Path(inspect.getfile(adapter)))


def _imported(file: Path) -> ModuleType:
    file = file.resolve()
    # Modules are known by name, for pickling; two files of one name in two folders are two modules.
    name = f"motive_adapter_{file_digest(file)}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        lines = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {lines[0] if lines else ''}"
        raise UserError(f"the adapter {file} cannot be imported ({reason}): correct it") from error
    return module
