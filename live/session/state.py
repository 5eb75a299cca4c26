"""The state of reading a recording, as a file: after an interruption reading continues there, with the same people.

It contains everybody's place and look (colours and shades, see `live/looks.py`), and is deleted when the recording is
finished.
"""

import io
import json
import zipfile
from pathlib import Path

import numpy as np

from ...data.atomic_files import write_whole
from ...processor.input_errors import DataError
from ..looks import Look, Scene
from ..tracking import LiveTrack
from .people import Person
from .reader import SessionReader
from .records import Visit

_META = "meta"
_LOOK_PARTS = ("colors", "quarters", "shades")
_TRACK_ARRAYS = ("box_xyxy_px", "landmarks_xy_px", "colors", "velocity_xy_px_sec")
_TRACK_VALUES = ("first_seen_sec", "seen_sec", "number", "found", "num_sightings")
_COUNTS = ("num_windows", "num_passers_by", "num_unreadable_looks")


def save_state(reader: SessionReader, path: Path) -> None:
    """Write, or replace, the file.

    Raises:
        DataError: it cannot be written.
    """
    arrays: dict[str, np.ndarray] = {}

    def put_look(name: str, look: Look) -> bool:
        arrays.update({f"{name}/{part}": getattr(look, part) for part in _LOOK_PARTS})
        return look.is_shared

    tracks = []
    for i, track in enumerate(reader.tracker.tracks):
        arrays |= {f"track{i}/{name}": getattr(track, name) for name in _TRACK_ARRAYS}
        looks = [(sec, put_look(f"track{i}/look{j}", look)) for j, (sec, look) in enumerate(track.looks)]
        place = None if track.scene is None else track.scene.place
        if track.scene is not None:
            arrays[f"track{i}/scene"] = track.scene.pixels
        values = {name: getattr(track, name) for name in _TRACK_VALUES}
        tracks.append(values | {"looks": looks, "scene": place})
    people = []
    for i, person in enumerate(reader.people.everybody):
        arrays[f"person{i}/box"] = person.box_xyxy_px
        looks = [(sec, put_look(f"person{i}/look{j}", look)) for j, (sec, look) in enumerate(person.looks)]
        track_place = reader.tracker.tracks.index(person.track) if person.track is not None else None
        visits = [(visit.start_sec, visit.end_sec) for visit in person.visits]
        people.append({"visits": visits, "looks": looks, "may_be": person.may_be, "track": track_place})
    meta = {name: getattr(reader, name) for name in _COUNTS}
    meta |= {"tracks": tracks, "people": people, "tracker": reader.tracker.clock()}
    arrays[_META] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # NumPy's signature mixes its option with the arrays
    write_whole(path, file.getvalue())


def load_state(reader: SessionReader, path: Path) -> bool:
    """Set a new reader to the stored state; False if there is no file.

    Raises:
        DataError: the file contains something else.
    """
    if not path.exists():
        return False
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        meta = json.loads(arrays[_META].tobytes())

        def get_look(name: str, is_shared: bool) -> Look:
            colors, quarters, shades = (arrays[f"{name}/{part}"] for part in _LOOK_PARTS)
            return Look(colors, quarters, shades, is_shared)

        tracks = []
        for i, known in enumerate(meta["tracks"]):
            kept, place = known.pop("looks"), known.pop("scene")
            looks = [(sec, get_look(f"track{i}/look{j}", shared)) for j, (sec, shared) in enumerate(kept)]
            scene = None if place is None else Scene(tuple(place), arrays[f"track{i}/scene"])
            own = {name: arrays[f"track{i}/{name}"] for name in _TRACK_ARRAYS}
            tracks.append(LiveTrack(**own, **known, looks=looks, scene=scene))
        people = []
        for i, known in enumerate(meta["people"]):
            person = Person(i + 1, arrays[f"person{i}/box"], [Visit(*visit) for visit in known["visits"]])
            person.looks = [
                (sec, get_look(f"person{i}/look{j}", shared)) for j, (sec, shared) in enumerate(known["looks"])
            ]
            person.may_be, place = known["may_be"], known["track"]
            person.track = None if place is None else tracks[place]
            people.append(person)
        reader.tracker.tracks, reader.people.everybody = tracks, people
        reader.tracker.set_clock(*meta["tracker"])
        for name in _COUNTS:
            setattr(reader, name, int(meta[name]))
    except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} does not contain the state of a recording; delete it to read the recording from the start."
        ) from error
    return True
