"""A Ray cluster that works for a command: one that runs already, or this machine alone while the command lasts.

Ray decides what runs where and does again what was lost with a worker; what is to be done, and how results are kept, is
said by whoever uses it. All nodes have this package, and share the storage of inputs and outputs under one name.
"""

import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from ..processor.input_errors import DataError, EngagementInputError, RecipeError, in_one_line
from .required_packages import require_extra
from .worker_processes import usable_cpus

_Task = TypeVar("_Task")
_Done = TypeVar("_Done")
_OBJECT_STORE_BYTES = 256 * 2**20  # of this machine alone: what passes through it are names and answers
_CONNECT_SEC = 5
_TRIES = 4  # of a task whose worker dies each time: it may be the task that kills them


@dataclass(frozen=True)
class RayCluster:
    """What works: each worker holds a processor and, where `device` is "cuda", a GPU."""

    num_workers: int
    device: str

    @property
    def gpus_per_worker(self) -> int:
        """As Ray asks it."""
        return int(self.device == "cuda")

    def each(self, work: Callable[[_Task], _Done], tasks: Sequence[_Task], shared: Path) -> Iterator[_Done]:
        """What `work` makes of each task, when it is ready.

        Args:
            shared: a file that every node must see.
        """
        import ray

        here = Path.cwd()

        def run(task: _Task) -> _Done:
            require_shared(here, shared)
            return work(task)

        # Without a limit of calls the process that holds a GPU would end, and load what it needs again, each time.
        remote = ray.remote(num_cpus=1, num_gpus=self.gpus_per_worker, max_calls=0, max_retries=_TRIES)(run)
        left = iter(tasks)
        running = [remote.remote(task) for task in islice(left, self.num_workers)]
        while running:
            (done,), running = ray.wait(running)
            running += [remote.remote(task) for task in islice(left, 1)]
            yield ray.get(done)


@contextmanager
def ray_cluster(address: str | None, num_workers: int | None, device: str) -> Iterator[RayCluster]:
    """
    Args:
        address: host:port of a cluster's head; auto: the cluster of this machine; None: this machine alone.
        num_workers: default: one for each GPU of the cluster or, of those without, for each processor but one, which
            reads names and writes answers.
        device: auto, cpu or cuda.

    Raises:
        RecipeError: a device that Ray does not hand out, or that no node has.
        DataError: nobody answers there, or Ray or a worker of it failed, and its tries were used up.
        EngagementInputError: Ray is not installed.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise RecipeError(f"Expected device auto, cpu or cuda with Ray, which hands out GPUs itself, got {device}.")
    require_extra("ray", ("ray",), "leave --engine ray out")
    if address not in (None, "auto"):
        _require_answer(str(address))
    # Read on import. A worker that dies is told of by Ray, its C++ parts need not.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    alone = min(num_workers or usable_cpus(), usable_cpus())
    try:
        ray.init(
            address or "local",
            num_cpus=None if address else alone + 1,
            object_store_memory=None if address else _OBJECT_STORE_BYTES,
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(
            f"Expected Ray, got none ({in_one_line(error, max_chars=300)}); versions of Ray and Python here must be "
            "those of the cluster, and so must RAY_AUTH_MODE, where it asks for a token."
        ) from error
    try:
        found = ray.cluster_resources()
        gpus = 0 if device == "cpu" else int(found.get("GPU", 0))
        if device == "cuda" and not gpus:
            raise RecipeError("Expected a GPU in the cluster for device cuda, Ray knows of none; leave --device out.")
        most = gpus or max(1, int(found.get("CPU", 1)) - 1)
        # A cluster may grow when more is asked for than it has; this machine cannot.
        count = min(most, alone) if address is None else num_workers or most
        yield RayCluster(count, "cuda" if gpus else "cpu")
    except ray.exceptions.RayError as error:
        raise _in_our_words(error, ray.exceptions.RayError) from error
    finally:
        ray.shutdown()


def require_shared(here: Path, shared: Path) -> None:
    """In a worker: go to the folder of the command, so that names mean the same.

    Raises:
        DataError: it is not there on this node, or `shared` is not.
    """
    if here.is_dir():
        os.chdir(here)
    if Path.cwd() != here or not shared.is_file():
        raise DataError(
            f"Expected {here / shared} on every node, {socket.gethostname()} lacks it; inputs, model and output must "
            "lie on storage that all nodes share, and the command be typed in a folder there."
        )


def _require_answer(address: str) -> None:
    """Ray itself would try for minutes, deaf to Ctrl-C."""
    host, _, port = address.rpartition(":")
    try:
        if not host or not port.isdigit():
            raise OSError("that is not host:port")
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SEC).close()
    except (OSError, OverflowError) as error:
        raise DataError(
            f"Expected a Ray cluster at {address}, got none ({in_one_line(error)}); ray start --head starts one and "
            "says its address, and ray status asks whether it runs."
        ) from error


def _in_our_words(error: Exception, of_ray: type[Exception]) -> EngagementInputError:
    """What a worker raised on its own account, if anything did; Ray hands it on within errors of its own."""
    told: BaseException = error
    while isinstance(told, of_ray) and (cause := getattr(told, "cause", None) or told.__cause__) is not None:
        told = cause
    if isinstance(told, EngagementInputError):
        return told
    return DataError(
        f"Expected Ray to finish, got {type(told).__name__}: {in_one_line(told, max_chars=300)}; what is finished is "
        "kept: mend it, and type the same command again."
    )
