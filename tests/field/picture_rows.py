"""Pictures and faces of the field."""

import subprocess
import sys
import zlib
from pathlib import Path
from unittest.mock import patch

import numpy as np
from bench import Bench, Said
from picture_inputs import (
    animation,
    as_file,
    at,
    exif,
    face,
    heif,
    large,
    link,
    pipe,
    png_chunk,
    png_with,
    rational_below_zero,
    saved,
    turned,
)
from PIL import Image, features
from rows import Comes, Refused, Row

from engagement_recognition.processor.input_errors import ImageReadError
from engagement_recognition.processor.media_inputs import open_picture
from engagement_recognition.processor.picture_files import Picture

_PEAK = """
import resource, sys
from engagement_recognition.processor.image_processing_engagement import EngagementImageProcessor
print(EngagementImageProcessor(face_crop=False).take_as_face(sys.argv[1]).notes)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, "MiB")
"""


def opened(bench: Bench, path: Path) -> Picture:
    return open_picture(path)


def predicted(bench: Bench, path: Path) -> object:
    return bench.expression.predict(path)


def by_command(bench: Bench, path: Path) -> Said:
    return bench.command("predict", path)


def without_pillow_heif(bench: Bench, path: Path) -> Said:
    with patch("importlib.util.find_spec", return_value=None):
        return bench.command("predict", path)


def with_pillow_heif(bench: Bench, path: Path) -> Picture:
    """As if it were there: what it registers is asked for by name."""
    asked: list[object] = []

    class Registers:
        @staticmethod
        def register_heif_opener() -> None:
            asked.append("registered")

    def open_image(file: object, formats: object = None) -> Image.Image:
        asked.append(formats)
        return face()

    with (
        patch("PIL.Image.open", open_image),
        patch("importlib.util.find_spec", return_value=object()),
        patch("importlib.import_module", return_value=Registers),
    ):
        found = open_picture(path)
    assert asked == ["registered", ["HEIF"]]
    return found


def is_the_face(picture: Picture, turned_by: int = 0) -> bool:
    """Within what JPEG loses."""
    expected = np.rot90(np.asarray(face()), turned_by)
    same = picture.pixels.shape == expected.shape
    return same and float(np.abs(picture.pixels.astype(float) - expected).mean()) < 6


def is_turned(picture: Picture) -> bool:
    return is_the_face(picture, turned_by=-1)


def avif_photo(folder: Path) -> Path:
    content = saved("AVIF", quality=95) if features.check("avif") else heif(b"avif")
    return at(folder, "photo.avif", content)


class _ReadOrTold:
    """AVIF is read where Pillow can, else a line says what to do."""

    def check(self, call: object) -> None:
        if features.check("avif"):
            Comes(that=is_the_face).check(call)  # type: ignore[arg-type]
        else:
            Refused(("photo.avif", "AVIF", "convert it to JPEG")).check(call)  # type: ignore[arg-type]


def peak_memory(bench: Bench, path: Path) -> Said:
    done = subprocess.run([sys.executable, "-c", _PEAK, str(path)], capture_output=True, text=True, check=False)
    return Said(done.returncode, done.stdout, done.stderr)


def below_2_gb(said: Said) -> bool:
    return int(said.out.split()[-2]) < 2000


def saved_at(folder: Path, name: str, picture: Image.Image, **options: object) -> Path:
    picture.save(folder / name, **options)
    return folder / name


HEIC = ("HEIC", "convert it to JPEG", "pip install pillow-heif")
BROKEN = "its metadata is broken and was left out"
ROWS = [
    Row("HEIC of a phone", as_file("IMG_0001.HEIC", heif), without_pillow_heif, Refused(("IMG_0001.HEIC", *HEIC)), 6),
    Row("HEIC called jpg", as_file("a.jpg", heif), without_pillow_heif, Refused(("a.jpg", *HEIC)), 6),
    Row("HEIF of brand mif1", as_file("a.heif", lambda: heif(b"mif1", (b"heic",))), without_pillow_heif,
        Refused(("a.heif", *HEIC)), 6),
    Row("HEIC with pillow-heif", as_file("a.heic", heif), with_pillow_heif, Comes(that=is_the_face), 6),
    Row("HEIC called mp4", as_file("clip.mp4", heif), by_command, Refused(("clip.mp4", "HEIC picture")), 6),
    Row("HEIX without a name", as_file("photo", lambda: heif(b"heix")), predicted,
        Refused(("photo", "HEIC picture")), 6),
    Row("HEIC as bytes before a clip model", as_file("a.heic", heif),
        lambda bench, path: bench.engagement.video_processor.prepare_clip(path.read_bytes()),
        Refused(("<bytes>", "HEIC picture")), 6),
    Row("AVIF photo", avif_photo, opened, _ReadOrTold(), 6),
    Row("AVIF called mp4", as_file("clip.mp4", lambda: heif(b"avif")), predicted, Refused(("clip.mp4", "AVIF")), 6),
    Row("raw of a Canon", as_file("a.mov", lambda: heif(b"crx ")), predicted, Refused(("a.mov", "Canon raw")), 6),
    Row("orientation beside a rational of -1/0, JPEG",
        as_file("a.jpg", lambda: saved("JPEG", exif=b"Exif\0\0" + rational_below_zero())), opened,
        Comes(that=is_turned), 26),
    Row("orientation beside a rational of -1/0, WebP",
        as_file("a.webp", lambda: saved("WEBP", exif=rational_below_zero(), quality=95)), opened,
        Comes(that=is_turned), 26),
    Row("orientation of a phone", as_file("a.jpg", lambda: saved("JPEG", exif=b"Exif\0\0" + exif(turned()))), opened,
        Comes(that=is_turned), 26),
    Row("orientation 99", as_file("a.jpg", lambda: saved("JPEG", exif=b"Exif\0\0" + exif(turned(99)))), opened,
        Comes(that=is_the_face), 26),
    Row("EXIF of garbage, PNG", as_file("a.png", lambda: png_with(png_chunk(b"eXIf", b"garbage"))), opened,
        Comes(("EXIF is broken",), is_the_face), 26),
    Row("EXIF of garbage, WebP", as_file("a.webp", lambda: saved("WEBP", exif=b"garbage", quality=95)), opened,
        Comes(("EXIF is broken",), is_the_face), 26),
    Row("EXIF of garbage in a prepared picture", as_file("a.png", lambda: png_with(png_chunk(b"eXIf", b"garbage"))),
        lambda bench, path: bench.command("predict", path), Comes(("note: its EXIF is broken",)), 26),
    Row("text of a wrong checksum, PNG", as_file("a.png", lambda: png_with(png_chunk(b"tEXt", b"a\0b", True))), opened,
        Comes((BROKEN,), is_the_face), 26),
    Row("profile that unpacks to megabytes, PNG",
        as_file("a.png", lambda: png_with(png_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2 << 20))))),
        opened, Comes((BROKEN,), is_the_face), 26),
    Row("size of a pixel cut short, PNG", as_file("a.png", lambda: png_with(png_chunk(b"pHYs", b"a"))), opened,
        Comes((BROKEN,), is_the_face), 26),
    Row("brightness curve cut short behind the pixels, PNG",
        as_file("a.png", lambda: png_with(png_chunk(b"gAMA", b""), b"IEND")), opened,
        Comes((BROKEN,), is_the_face), 26),
    Row("profile in parts that do not fit, JPEG",
        as_file("a.jpg",
        lambda: saved("JPEG", icc_profile=b"odd" * 50).replace(b"ICC_PROFILE\0\1\1", b"ICC_PROFILE\0\7\3")),
        opened, Comes(that=is_the_face), 26),
    Row("PNG cut in the middle", as_file("a.png", lambda: saved("PNG")[:9000]), predicted,
        Refused(("a.png", "truncated", "pass a JPEG")), 26),
    Row("AVIF cut in the middle", as_file("a.jpg", lambda: saved("AVIF")[:900]
        if features.check("avif") else heif(b"avif")),
        by_command, Refused(("a.jpg",)), 26),
    Row("AVIF of zeros", as_file("a.avif", lambda: heif(b"avif") + bytes(3000)), predicted, Refused(("a.avif",)), 26),
    Row("TIFF whose directory lies beyond its end", as_file("a.tif", lambda: b"II*\0" + b"\xff" * 40), predicted,
        Refused(("a.tif",)), 26),
    Row("link to itself", lambda folder: link(folder, "a.jpg", "a.jpg"), predicted,
        Refused(("a.jpg", "levels of symbolic")), 26),
    Row("text called png", as_file("a.png", lambda: b"no picture"), predicted,
        Refused(("a.png", "cannot identify")), 26),
    Row("a palette with transparency", as_file("a.png", lambda: saved("PNG", face().quantize(64), transparency=0)),
        opened,
        Comes(that=lambda picture: picture.pixels.shape == (240, 320, 3)), 26),
    Row("floats, TIFF", as_file("a.tif", lambda: saved("TIFF", Image.fromarray(np.float32([[0, 0.5, 1]])))), opened,
        Comes(that=lambda picture: picture.pixels[0, :, 0].tolist() == [0, 128, 255]), 26),
    Row("animated GIF", as_file("a.gif", lambda: animation("GIF")), predicted,
        Refused(("a.gif", "animation", "MP4")), 18),
    Row("animated WebP", as_file("a.webp", lambda: animation("WEBP")), predicted,
        Refused(("a.webp", "animation", "MP4")), 18),
    Row("animated GIF called mp4", as_file("a.mp4", lambda: animation("GIF")), predicted,
        Refused(("a.mp4", "GIF", "MP4")), 18),
    Row("animated WebP called mp4", as_file("a.mp4", lambda: animation("WEBP")), predicted,
        Refused(("a.mp4", "WebP", "MP4")), 18),
    Row("still GIF", as_file("a.gif", lambda: saved("GIF")), opened,
        Comes(that=lambda picture: picture.pixels.shape == (240, 320, 3)), 18),
    Row("two pages, TIFF", as_file("a.tiff", lambda: saved("TIFF", save_all=True, append_images=[face().rotate(9)])),
        opened,
        Comes(("the first of its 2 pages",), is_the_face)),
    Row("72 megapixels, PNG", lambda folder: saved_at(folder, "a.png", large(9000, 8000), compress_level=1), opened,
        Comes(("read at half the size",), lambda picture: picture.pixels.shape == (4000, 4500, 3)), 28),
    Row("72 megapixels, JPEG", lambda folder: saved_at(folder, "a.jpg", large(9000, 8000)), opened,
        Comes(("9000x8000 pixels, read at half",), lambda picture: picture.pixels.shape == (4000, 4500, 3)), 28),
    Row("180 megapixels, 1 bit", lambda folder: saved_at(folder, "a.png", Image.new("1", (18000, 10000))), predicted,
        Refused(("a.png", "at most", "smaller")), 28),
    Row("13000x13000 in 2 GB", lambda folder: saved_at(folder, "a.png", large(13000, 13000, "RGB"), compress_level=1),
        peak_memory, Comes(("half the size",), below_2_gb), 28, slow=True),
    Row("pipe called jpg", lambda folder: pipe(folder, "a.jpg"), predicted, Refused(("a.jpg", "device or pipe")), 27),
    Row("pipe called heic", lambda folder: pipe(folder, "a.heic"), predicted,
        Refused(("a.heic", "device or pipe")), 27),
    Row("link to a device without end", lambda folder: link(folder, "a.png", "/dev/zero"), predicted,
        Refused(("a.png", "device or pipe")), 27),
    Row("folder called jpg", lambda folder: (folder / "a.jpg").mkdir() or folder / "a.jpg", predicted,
        Refused(("a.jpg", "the folder", "pass the files in it")), 27),
    Row("empty jpg", as_file("a.jpg", lambda: b""), predicted, Refused(("a.jpg", "an empty file")), 26),
    Row("Pillow's picture that does not decode", as_file("a.png", lambda: saved("PNG")[:9000]),
        lambda bench, path: open_picture(Image.open(path)), Refused(("<picture>", "truncated"), ImageReadError), 26),
]  # fmt: skip
