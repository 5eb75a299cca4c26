"""Films of the field."""

from bench import write_film
from rows import Comes, Refused, Row

ROWS = [
    Row(
        "mp4 of a face",
        lambda folder: write_film(folder / "clip.mp4"),
        lambda bench, film: bench.engagement.predict(film),
        Comes(that=lambda answer: answer.face_coverage == 1.0),
    ),
    Row(
        "text called mp4",
        lambda folder: (folder / "clip.mp4").write_text("no film") and folder / "clip.mp4",
        lambda bench, film: bench.command("predict", film),
        Refused(("clip.mp4", "no known container format", "convert it")),
    ),
]
