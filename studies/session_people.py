"""Does a session confuse people? Calls with known people are read in the same way as by `engagement session`.

`python -m engagement_recognition.studies.session_people --minutes 60 --model MODEL` draws a call of four tiles in which
two people leave and come back and one tile shows a different speaker. With `--frames`, a parquet file with columns
`image`, `subject_id` and `frame_index` of real faces (such as WACV 2016's, mostly grey and tightly cropped), tiles show
those instead: every tile changes its person every 20 to 40 seconds, which is harder than a real call.
"""

import argparse
import io
import resource
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import pyarrow.parquet
from PIL import Image

from ..data.drawn.call import (
    POSES_FPS,
    TILE_HEIGHT_PX,
    TILE_WIDTH_PX,
    Stay,
    Tile,
    drawn_tile,
    long_call,
    who_is_at,
    write_call,
)
from ..inference.predictor import Predictor
from ..live.session.reader import SessionReader
from ..processor.video_index import index_video

_FILM_FPS = 25
_TILES = 4
_FACE_PX = 160  # of a real face in its tile


def measure(film: Path, stays: Sequence[Stay], predictor: Predictor) -> list[str]:
    """Lines on time, memory and identity switches."""
    index, reader, started = index_video(film), SessionReader(predictor, film.name), time.perf_counter()
    names: dict[int, list[str]] = {}  # by number of the counted person: the true person in each window
    lines, marks_min = [], [10, 30, 60]
    for rows in reader.rows_of(index):
        end_sec = rows[0].end_sec
        for person in reader.people.everybody:
            is_there = person.track is not None and person.track.found
            name = who_is_at(stays, person.box_xyxy_px, person.seen_sec) if is_there else None
            if name is not None:
                names.setdefault(person.number, []).append(name)
        while marks_min and end_sec >= marks_min[0] * 60 - 0.1:
            minutes = (time.perf_counter() - started) / 60
            peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            lines.append(f"after {marks_min.pop(0)} minutes of video: {minutes:.1f} minutes, peak {peak_mb:.0f} MB")
    reader.finish()
    minutes = (time.perf_counter() - started) / 60
    switches = sum(a != b for seen in names.values() for a, b in pairwise(seen))
    true_people, num_stays = len({stay.name for stay in stays}), len(stays)
    lines.append(
        f"{index.duration_sec / 60:.1f} minutes of video in {minutes:.1f} minutes; {true_people} people in "
        f"{num_stays} stays, counted {len(reader.people.everybody)} people and {reader.num_passers_by} present too "
        f"briefly to count; identity switches, by window: {switches} of {sum(map(len, names.values()))}"
    )
    hints = [person for person in reader.people.everybody if person.may_be is not None]
    right = sum(_same(names, person.number, person.may_be) for person in hints)
    lines.append(f"hints that a person may be one who left before: {len(hints)}, of which {right} are right")
    return lines


def _same(names: dict[int, list[str]], first: int, second: int | None) -> bool:
    """Whether two numbers mostly belong to the same person."""
    mostly = [max(set(names[number]), key=names[number].count) for number in (first, second) if number in names]
    return len(mostly) == 2 and mostly[0] == mostly[1]


def real_call(frames: Path, minutes: float, seed: int) -> tuple[list[Stay], Tile]:
    """Tiles of real faces, one frame per second; people are assigned at random, and nobody is in two tiles at once.

    The faces are grey, since colour would distinguish some of them; the rest of a tile repeats their edges.
    """
    rows = pyarrow.parquet.read_table(frames).to_pylist()
    rows.sort(key=lambda row: (row["subject_id"], row["frame_index"]))
    pictures: dict[str, list[bytes]] = {}
    for row in rows:
        pictures.setdefault(row["subject_id"], []).append(row["image"]["bytes"])
    rng, end_sec, stays = np.random.default_rng(seed), minutes * 60, list[Stay]()
    free_at = dict.fromkeys(pictures, 0.0)
    starts = [0.0] * _TILES
    while min(starts) < end_sec:
        tile = int(np.argmin(starts))
        name = str(rng.choice([name for name, free_sec in free_at.items() if free_sec <= starts[tile]]))
        stop_sec = min(end_sec, starts[tile] + rng.uniform(20, 40))
        stays.append(Stay(name, int(rng.integers(len(pictures[name]))), tile, starts[tile], stop_sec))
        free_at[name] = starts[tile] = stop_sec

    def show(stay: Stay, time_sec: float) -> np.ndarray:
        own = pictures[stay.name]
        with Image.open(io.BytesIO(own[(stay.seed + int(time_sec - stay.start_sec)) % len(own)])) as opened:
            grey = np.asarray(opened.convert("L").resize((_FACE_PX, _FACE_PX)))
        above, beside = (TILE_HEIGHT_PX - _FACE_PX) // 2, (TILE_WIDTH_PX - _FACE_PX) // 2
        tile = cv2.copyMakeBorder(grey, above, above, beside, beside, cv2.BORDER_REPLICATE)
        return cv2.cvtColor(tile, cv2.COLOR_GRAY2RGB)

    return stays, show


def main() -> None:
    """Draw, read, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a model's folder")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--frames", type=Path, help="real faces, a parquet file")
    parser.add_argument("--seed", type=int, default=0, help="of the random assignment, with --frames")
    parser.add_argument("--film", type=Path, help="file for the drawn call; used as it is if it exists")
    options = parser.parse_args()
    stays = long_call(options.minutes)
    tile: Tile = drawn_tile
    if options.frames:
        stays, tile = real_call(options.frames, options.minutes, options.seed)
    with TemporaryDirectory() as folder:
        fps = POSES_FPS if options.frames else _FILM_FPS
        film = options.film or Path(folder) / "call.mp4"
        if not film.exists():
            write_call(film, stays, options.minutes * 60, fps, tile=tile)
        print("\n".join(measure(film, stays, Predictor.from_pretrained(options.model, device="cpu").speed_up())))


if __name__ == "__main__":
    main()
