"""`make fuzz`: spoilt inputs of every class through our readers, by a seed: `python tests/field/fuzz.py --minutes 5`.

Each input goes to a process of its own kind that may be killed. Whatever is not a result or one line of ours is a
finding: a crash, a hang, an error of another type, frames that are gone without a word, frames other than a full decode
has. Findings are written to `build/fuzz/`, to become rows of the matrix. Exit code 1: there are some.
"""

import argparse
import io
import multiprocessing
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

sys.path += [str(Path(__file__).parents[1] / "helpers"), str(Path(__file__).parent)]
_HANG_SEC = 60
_OUTCOMES = ("came out", "said a loss", "no length", "refused", "crash", "hang", "untyped", "lost", "other frames")
_FINDINGS = _OUTCOMES[4:]
_KEPT = 200


def fuzz_video(number: int, seed: int, folder: Path) -> tuple[str, bytes, str]:
    """A film; its frames are those of a full decode, and all of them unless it is said."""
    from mutations import DAMAGES, FILMS, NUM_FRAMES, film

    from engagement_recognition.processor.video_decoding import decode_clips
    from engagement_recognition.processor.video_index import index_video

    pairs = [(name, damage) for damage in DAMAGES for name in FILMS]
    name, damage = pairs[number % len(pairs)]
    data = bytearray(film(name))
    DAMAGES[damage](data, np.random.default_rng([seed, number]))

    def read() -> str:
        index = index_video(bytes(data))
        clips = list(decode_clips(index, [np.array([frame]) for frame in range(index.num_frames)]))
        good = [frame for frame, clip in enumerate(clips) if not isinstance(clip, Exception)]
        plain = _plainly(bytes(data))
        if len(plain) == index.num_frames and plain[0].shape == (
            index.height_px,
            index.width_px,
            3,
        ):  # upright as it is
            differing = [frame for frame in good if (clips[frame].frames[0] != plain[frame]).any()]
            # What a decoder did not fill of a damaged picture holds whatever that memory held before.
            again = _plainly(bytes(data), holds_all=True) if differing else plain
            if differing := [frame for frame in differing if (again[frame] == plain[frame]).all()]:
                return f"other frames: {differing[:9]}"
        missing = NUM_FRAMES - index.num_frames
        if missing > 0 and not index.notes:
            # Nothing in a transport stream tells how long it was.
            return "no length" if name.endswith(".ts") and damage == "cut" else f"lost: {missing}"
        return "said a loss" if index.notes or len(good) < len(clips) else "came out"

    return f"{name} {damage}", bytes(data), _outcome(read)


def _plainly(data: bytes, holds_all: bool = False) -> list[np.ndarray]:
    """What a full decode gives, as far as it comes; `holds_all`: of pictures that all lie in memory at once."""
    import av

    frames, held = [], []
    try:
        with av.open(io.BytesIO(data)) as container:
            for frame in container.decode(video=0):
                if frame.is_corrupt:
                    return []
                held.append(frame if holds_all else None)
                frames.append(frame.to_ndarray(format="rgb24"))
    except (av.FFmpegError, IndexError, ValueError):
        return []
    return frames


def fuzz_picture(number: int, seed: int, folder: Path) -> tuple[str, bytes, str]:
    """A photo."""
    from spoilt import PICTURES, damaged, picture

    from engagement_recognition.processor.media_inputs import load_picture

    ending = list(PICTURES)[number % len(PICTURES)]
    data = damaged(picture(ending), np.random.default_rng([seed, number]))
    return ending, data, _outcome(lambda: load_picture(data))


def fuzz_archive(number: int, seed: int, folder: Path) -> tuple[str, bytes, str]:
    """A zip or tar of pictures; every member that is found is read."""
    from spoilt import archive, damaged

    from engagement_recognition.data.readers.sources import read_source
    from engagement_recognition.processor.input_errors import EngagementInputError

    ending = ("zip", "tar", "tar.gz")[number % 3]
    data = damaged(archive(ending), np.random.default_rng([seed, number]))
    path = folder / f"data.{ending}"
    path.write_bytes(data)

    def read() -> str:
        source, num_bad = read_source(None, path), 0
        for record in source.records:
            try:
                source.read(record)
            except EngagementInputError:
                num_bad += 1
        return "said a loss" if num_bad or source.rejects else "came out"

    return ending, data, _outcome(read)


def fuzz_model(number: int, seed: int, folder: Path) -> tuple[str, bytes, str]:
    """A model's folder of which one file is spoilt; one that loads answers, or says why not."""
    from spoilt import MODEL_FILES, damaged, edited, write_model

    from engagement_recognition.inference.predictor import Predictor

    rng, name = np.random.default_rng([seed, number]), MODEL_FILES[number % 3]
    model = folder / "model"
    write_model(model)
    path = model / name
    if name.endswith(".json") and rng.random() < 0.8:
        path.write_text(edited(path.read_text(), rng))
    else:
        path.write_bytes(damaged(path.read_bytes(), rng))

    def read() -> None:
        from bench import face_frames

        predictor = Predictor.from_pretrained(str(model), device="cpu")
        clip = predictor.video_processor.prepare_clip(np.stack(face_frames(8)), face_crop=False)
        scores = predictor.score_clips([clip])[0]
        assert np.isfinite(scores).all(), scores

    return name, path.read_bytes(), _outcome(read)


def fuzz_record(number: int, seed: int, folder: Path) -> tuple[str, bytes, str]:
    """A results file, edited by hand or spoilt."""
    from spoilt import damaged, edited, write_record

    from engagement_recognition.evaluation.results_file import read_results

    rng, path = np.random.default_rng([seed, number]), folder / write_record(folder)
    if number % 2:
        path.write_text(edited(path.read_text(), rng))
    else:
        path.write_bytes(damaged(path.read_bytes(), rng))
    return path.name, path.read_bytes(), _outcome(lambda: read_results(folder))


CLASSES: dict[str, Callable[[int, int, Path], tuple[str, bytes, str]]] = {
    "video": fuzz_video,
    "picture": fuzz_picture,
    "archive": fuzz_archive,
    "model": fuzz_model,
    "record": fuzz_record,
}


def _outcome(read: Callable[[], object]) -> str:
    from engagement_recognition.processor.input_errors import EngagementInputError

    try:
        found = read()
    except EngagementInputError as error:
        return "refused" if "\n" not in str(error) else f"untyped: more than a line: {error}"
    except Exception:
        return f"untyped: {traceback.format_exc()}"
    return found if isinstance(found, str) else "came out"


def _work(pipe: Connection) -> None:
    """In a process of its own: one input after the other, until it is killed or told to end."""
    import logging

    import torch
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    from mutations import FILMS, film

    for name in FILMS:  # made once, and not while somebody waits for an answer
        film(name)
    pipe.send("ready")
    while (asked := pipe.recv()) is not None:
        kind, number, seed = asked
        with tempfile.TemporaryDirectory() as folder:
            pipe.send(CLASSES[kind](number, seed, Path(folder)))


class _Worker:
    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_work, args=(other,), daemon=True)
        self.process.start()
        other.close()
        self.pipe.recv()

    def run(self, kind: str, number: int, seed: int) -> tuple[str, bytes, str]:
        """What came of it; the process is replaced where it did not survive."""
        self.pipe.send((kind, number, seed))
        try:
            if self.pipe.poll(_HANG_SEC):
                return self.pipe.recv()
            found = f"hang: more than {_HANG_SEC} s"
        except EOFError:
            self.process.join()
            found = f"crash: exit code {self.process.exitcode}"
        self.process.kill()
        self._start()
        return kind, b"", found

    def end(self) -> None:
        self.pipe.send(None)
        self.process.join()


def main(arguments: list[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description="Spoilt inputs of every class through our readers.")
    parser.add_argument("--minutes", type=float, default=5.0, help="in all, shared by the classes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--classes", nargs="+", choices=list(CLASSES), default=list(CLASSES))
    parser.add_argument("--only", type=int, help="this number alone, of one class, with all that is known of it")
    options = parser.parse_args(arguments)
    findings, found = Path("build/fuzz"), defaultdict(Counter)
    worker, began = _Worker(), time.monotonic()
    for place, kind in enumerate(options.classes, start=1):
        end = began + 60 * options.minutes * place / len(options.classes)
        number = options.only or 0
        while time.monotonic() < end:
            name, data, outcome = worker.run(kind, number, options.seed)
            short = outcome.partition(":")[0]
            found[kind][short] += 1
            if short in _FINDINGS and found[kind].total() <= _KEPT * 100:
                print(f"{kind} {number} (seed {options.seed}), {name}: {outcome.strip().splitlines()[-1]}", flush=True)
                if found[kind][short] <= _KEPT:
                    findings.mkdir(parents=True, exist_ok=True)
                    stem = f"{kind}_{options.seed}_{number}"
                    (findings / f"{stem}.bin").write_bytes(data)
                    (findings / f"{stem}.txt").write_text(f"{name}\n{outcome}\n")
            if options.only is not None:
                print(outcome)
                break
            number += 1
    worker.end()
    print(f"{'':10}{'inputs':>9}" + "".join(f"{name:>14}" for name in _OUTCOMES))
    for kind, outcomes in found.items():
        print(f"{kind:10}{outcomes.total():>9}" + "".join(f"{outcomes[name]:>14}" for name in _OUTCOMES))
    print(f"seed {options.seed}, {(time.monotonic() - began) / 60:.1f} minutes; findings, if any, lie in {findings}")
    return int(any(outcomes[name] for outcomes in found.values() for name in _FINDINGS))


if __name__ == "__main__":
    sys.exit(main())
