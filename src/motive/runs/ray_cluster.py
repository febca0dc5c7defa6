"""A Ray cluster: reached, asked what it holds, and refused where a run could not work on it."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

from motive import __version__
from motive.errors import UserError
from motive.runs.processes import part_name
from motive.runs.provenance import remove_leftovers, versions
from motive.runs.remote import RemotePath, RunPath
from motive.runs.stage import Resources

# Of each core that a worker keeps busy. The rest is for Ray's own tasks: workers that hold all of a small
# machine leave no place for whatever feeds them, and everything waits for ever.
CPU_SHARE = 0.9


def require_ray(address: str | None) -> None:
    """Raise UserError when Ray is not installed, or when `address` is of a kind that cannot be used."""
    if find_spec("ray") is None:
        raise UserError(
            "the Ray engine needs a package that is not installed: "
            "pip install 'motive-attribution[ray]'"
        )
    if address is not None and "://" in address:
        raise UserError(
            f"the address {address} is no cluster's own: give HOST:PORT as ray start printed it, on a "
            "machine of the cluster (docs/scaling.md)"
        )


def connect(address: str | None) -> None:
    """Join the cluster at `address` (HOST:PORT, or `auto`), once a process.

    None joins the one that RAY_ADDRESS names or that runs on this machine, and starts one of this machine
    alone when there is none; that one ends with the process.

    Raises UserError when no cluster answers.
    """
    require_ray(address)
    # Ray asks at every start whether it may send statistics; a run sends nothing to anyone.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Today's rule hides GPUs from workers that asked for none; tomorrow's leaves the choice to us.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if ray.is_initialized():
        return
    try:
        ray.init(
            address=address, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
        )
    except (ray.exceptions.RayError, RuntimeError, ValueError, OSError) as error:
        where = f"at {address}" if address else "on this machine"
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"no Ray cluster answers {where} ({first[:200]}): "
            "start one with ray start --head, and give the address that it prints; where it asks for a "
            "token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
        ) from None


def require_room(address: str | None, resources: Resources) -> None:
    """Join the cluster, and raise UserError when it has no place for a worker that takes so much."""
    connect(address)
    import ray

    shares(resources, ray.nodes())


@dataclass(frozen=True)
class Share:
    """What one worker asks Ray for."""

    cpus: float
    gpus: int


def shares(resources: Resources, nodes: list[dict[str, Any]]) -> list[Share]:
    """What each worker of a stage asks for, as many workers as these machines hold.

    nodes: as `ray.nodes()` gives them.

    Raises UserError when they hold none, saying what is missing.
    """
    if resources.device.startswith("mps") or resources.device.partition(":")[2]:
        raise UserError(
            f"the device {resources.device} is one machine's own: use --device cuda, cpu or auto with "
            "--engine ray"
        )
    machines = [node["Resources"] for node in nodes if node["Alive"]]
    gpus = sum(int(machine.get("GPU", 0)) for machine in machines)
    if resources.device == "cuda" and not gpus:
        raise UserError(
            "the cluster has no GPU: use --device cpu or auto, or add a machine that has one"
        )
    on_gpu = gpus > 0 and resources.device in ("cuda", "auto")
    found: list[Share] = []
    for machine in machines:
        cores = math.floor(machine.get("CPU", 0))
        each = (resources.cpus or cores) if not on_gpu else min(resources.cpus or 1, cores)
        if not each or cores < each:
            continue
        count = min(cores // each, int(machine.get("GPU", 0))) if on_gpu else cores // each
        found += [Share(round(each * CPU_SHARE, 4), int(on_gpu))] * count
    if not found:
        most = max((math.floor(machine.get("CPU", 0)) for machine in machines), default=0)
        raise UserError(
            f"no machine of the cluster can hold a worker, which takes {resources.cpus or 1} CPUs"
            f"{' and a GPU' if on_gpu else ''}: the largest has {most} CPUs; "
            "add a larger one, or use fewer --threads"
        )
    return found


@dataclass(frozen=True)
class Surroundings:
    """What a worker must find around it, so that what it computes is what the driver would.

    software: versions of motive and of the packages that numbers depend on.
    token: a file in the run's folder that the driver has just written; None for an object store.
    places: files and folders that the driver sees.
    """

    software: dict[str, str]
    token: Path | None
    places: tuple[Path, ...]

    def require(self, machine: str) -> None:
        """Raise UserError, naming what differs, unless this process has the same surroundings."""
        if differing := software().items() - self.software.items():
            name, mine = min(differing)
            raise UserError(
                f"the machine {machine} has {name} {mine} and the driver {self.software.get(name)}: "
                "install the same versions on every machine"
            )
        for place in self.places if self.token is None else (self.token, *self.places):
            if not place.exists():
                shown = place if place is not self.token else place.parent
                raise UserError(
                    f"the machine {machine} does not see {shown}: put the run, the clips and the model "
                    "on storage that every machine mounts at the same path"
                )
        if self.token is not None and not os.access(self.token.parent, os.W_OK):
            raise UserError(
                f"the machine {machine} cannot write into {self.token.parent}: "
                "give it the right to, or mount it for writing"
            )


def software() -> dict[str, str]:
    """Versions of what the numbers are made by."""
    python = ".".join(versions()["python"].split(".")[:2])
    return {**versions(), "python": python, "motive": __version__}


@contextmanager
def surroundings(tables: RunPath, places: list[Path]) -> Iterator[Surroundings]:
    """Those of this process, with a token in the folder of the run's tables while the block lasts."""
    there = tuple(place.absolute() for place in places if place.exists())
    if isinstance(tables, RemotePath):
        yield Surroundings(software(), None, there)
        return
    tables.mkdir(parents=True, exist_ok=True)
    remove_leftovers(tables)
    token = tables.absolute() / part_name(f"seen-{uuid4().hex}")
    try:
        token.touch()
        yield Surroundings(software(), token, there)
    finally:
        token.unlink(missing_ok=True)
