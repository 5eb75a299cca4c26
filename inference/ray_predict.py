"""Predictions of more files than one machine answers: Ray Data reads the names, actors answer them, and answers are
written as they come.

An actor loads the model once; reading, refusing and answering in it are those of `many_files`. Ray Data marks rows as
done only when they are written, so that the same command goes on after whatever ended it. At the end the answers become
the table that `predict` writes without Ray, each file once and in order, and all else goes.
"""

import hashlib
import heapq
import logging
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..data.atomic_files import claim_folder, writing
from ..data.locked_folder import alone_in
from ..data.ray_cluster import RayCluster, ray_cluster, require_shared
from ..processor.bounded_reader import BoundedReader
from ..processor.input_errors import DataError, ModelLoadError
from .answer_rows import MADE_WITH, CountedAnswers, columns_of, write_parquet
from .answer_table import fingerprint
from .many_files import predict_many
from .predictions import to_json, to_json_line
from .predictor import Predictor

if TYPE_CHECKING:
    import pyarrow
    from ray.data import Dataset

_CLAIM, _PARTS, _CHECKPOINT = "made_with.txt", "parts", "checkpoint"
_MOST_FILES_AT_ONCE = 64  # what an actor that is killed may lose, against two files on the storage
_BLOCKS_PER_WORKER = 8  # at least, where there are few files: none waits long for the last
_WRITERS = 4
Load = Callable[[str], Predictor]  # of a device


def predict_in_ray(
    load: Load,
    predictor: Predictor,
    files: Sequence[Path],
    output: Path,
    address: str | None,
    num_workers: int | None,
    device: str,
    video_track: int | None = None,
) -> tuple[int, int]:
    """Answers every file once, in a Parquet table; the numbers of files and of refused ones.

    Args:
        load: loads the predictor anew, in an actor.
        predictor: the same, here.
        output: a new .parquet file; what is done so far lies in a folder beside it, of that name with `.ray` behind.
        address, num_workers, device: as for `ray_cluster`.

    Raises:
        DataError: the table is there, the folder is of another model or other settings, or nothing can be written.
        EngagementInputError: as `ray_cluster`.
    """
    work = output.with_name(f"{output.name}.ray")
    if output.suffix.lower() != ".parquet":
        raise DataError(f"Expected a table called .parquet with --engine ray, got {output}; give it such a name.")
    if output.exists() and not work.exists():
        raise DataError(f"Expected a new table, got {output}, which is there; name another.")
    if not files:
        raise DataError("Expected files to answer, got none; name some.")
    made_with = fingerprint(predictor, None, video_track)
    files = list(dict.fromkeys(files))
    # 64 bits, of which Ray keeps those that are done in memory; two of ten million are equal once in 400,000 jobs.
    digests = (hashlib.blake2b(os.fsencode(file), digest_size=8).digest() for file in files)
    ids = np.array([int.from_bytes(digest, signed=True) for digest in digests], np.int64)
    if len(np.unique(ids)) < len(ids):
        raise DataError(f"Expected names of {len(files)} files with different hashes, two have one; rename a folder.")
    if device == "auto" and not predictor.engine.name.startswith("torch"):
        device = "cpu"  # where exports run
    with alone_in(work, "prediction"):
        with ray_cluster(address, num_workers, device) as cluster:
            if claim_folder(work, _CLAIM, made_with, "answers") != made_with:
                raise DataError(
                    f"Expected answers of this very model and these settings in {work}, got others; name another file."
                )
            _answer_all(load, files, ids, work, cluster, video_track, made_with)
        counted = CountedAnswers()
        with writing(work):
            lines = counted.counting(answers_in_order(work / _PARTS, ids))
            write_parquet(lines, columns_of(predictor.rule.label_names), output)
        shutil.rmtree(work, ignore_errors=True)
    return counted.num_files, counted.num_refused


def _answer_all(
    load: Load,
    files: Sequence[Path],
    ids: np.ndarray,
    work: Path,
    cluster: RayCluster,
    video_track: int | None,
    made_with: str,
) -> None:
    import ray.data
    from pyarrow.fs import LocalFileSystem
    from ray.data.checkpoint import CheckpointConfig

    disk = LocalFileSystem()
    settings = ray.data.DataContext.get_current()
    settings.enable_progress_bars = sys.stderr.isatty()
    settings.execution_no_progress_timeout_s = -1  # a block of long films takes its time
    # Not deleted by Ray, for whom a job is done before the table is whole.
    settings.checkpoint_config = CheckpointConfig(
        "id", str((work / _CHECKPOINT).absolute()), delete_checkpoint_on_success=False, override_filesystem=disk
    )
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    actor = (load, cluster.device, Path.cwd(), work / _CLAIM, video_track, made_with)
    answers = _read_names(files, ids, cluster.num_workers).map_batches(
        _Answerer,
        fn_constructor_args=actor,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=cluster.num_workers),
        num_cpus=1,
        num_gpus=cluster.gpus_per_worker,
    )
    # As who reads names: actors, and who looks up what is done, may hold all processors for as long as there is work.
    parts = str((work / _PARTS).absolute())
    answers.write_parquet(parts, filesystem=disk, concurrency=_WRITERS, ray_remote_args={"num_cpus": 0})


def _read_names(files: Sequence[Path], ids: np.ndarray, num_workers: int) -> "Dataset":
    """Rows of an id and a name, as blocks that are answered and written one by one."""
    import pyarrow
    import ray.data
    from ray.data.block import BlockMetadata
    from ray.data.datasource import Datasource, ReadTask

    size = min(_MOST_FILES_AT_ONCE, max(1, len(files) // (_BLOCKS_PER_WORKER * num_workers)))

    def read_task(at: int) -> ReadTask:
        names = pyarrow.array(map(os.fsencode, files[at : at + size]), pyarrow.binary())
        block = pyarrow.table({"id": ids[at : at + size], "path": names})
        return ReadTask(lambda: [block], BlockMetadata(len(block), block.nbytes, None, None))

    class Names(Datasource):
        """Ray keeps no checkpoints of rows that come from memory, and would read a file of them as one block."""

        def estimate_inmemory_data_size(self) -> None:
            return None

        def get_read_tasks(self, *_: object, **__: object) -> list[ReadTask]:
            return [read_task(at) for at in range(0, len(files), size)]

    return ray.data.read_datasource(Names(), override_num_blocks=-(-len(files) // size), num_cpus=0, concurrency=1)


class _Answerer:
    """In an actor, for as long as it lives."""

    def __init__(
        self, load: Load, device: str, here: Path, claim: Path, video_track: int | None, made_with: str
    ) -> None:
        require_shared(here, claim)
        self.predictor, self.video_track, self.made_with = load(device), video_track, made_with
        if (found := fingerprint(self.predictor, None, video_track)) != made_with:
            raise ModelLoadError(
                f"Expected the same model and settings on every node ({made_with}), {socket.gethostname()} has others "
                f"({found}); put one model on the shared storage, and install one version of the package."
            )
        self.predictor = self.predictor.with_reader(BoundedReader()).speed_up()

    def __call__(self, block: "pyarrow.Table") -> "pyarrow.Table":
        """`id`, `path` -> `id`, `answer`: a line of JSON each."""
        import pyarrow

        paths = [Path(os.fsdecode(name)) for name in block["path"].to_pylist()]
        lines = [
            to_json_line({**to_json(answer, self.predictor.about), MADE_WITH: self.made_with})
            for answer in predict_many(self.predictor, paths, video_track=self.video_track)
        ]
        return pyarrow.table({"id": block["id"], "answer": lines})


def answers_in_order(parts: Path, ids: np.ndarray) -> Iterator[bytes]:
    """The answers as `ids` has them, each once; at the end those of files that are asked for no more.

    Raises:
        DataError: at the end, where an answer is missing, as when somebody has deleted a part.
    """
    num_told, last = 0, None
    for place, one, answer in _sorted_rows(parts, ids):
        if one != last:  # a writer that was thought dead may have written, too
            yield answer.encode()
            num_told, last = num_told + (place < len(ids)), one
    if num_told < len(ids):
        raise DataError(f"Expected every file's answer in {parts}, one is missing; delete {parts.parent}, begin anew.")


def _sorted_rows(parts: Path, ids: np.ndarray) -> Iterator[tuple[int, int, str]]:
    """Place in `ids`, id and answer. A part holds files that follow each other: few are in memory at a time."""
    import pyarrow.parquet

    by_id = np.argsort(ids)

    def places(table: "pyarrow.Table") -> np.ndarray:
        found = table["id"].to_numpy()
        at = by_id[np.minimum(np.searchsorted(ids, found, sorter=by_id), len(ids) - 1)]
        return np.where(ids[at] == found, at, len(ids))

    first = {path: places(pyarrow.parquet.read_table(path, columns=["id"])).min() for path in parts.glob("*.parquet")}
    waiting: list[tuple[int, int, str]] = []
    for path in sorted(first, key=first.__getitem__):
        while waiting and waiting[0][0] < first[path]:
            yield heapq.heappop(waiting)
        table = pyarrow.parquet.read_table(path)
        for row in zip(places(table).tolist(), table["id"].to_pylist(), table["answer"].to_pylist(), strict=True):
            heapq.heappush(waiting, row)
    yield from sorted(waiting)
