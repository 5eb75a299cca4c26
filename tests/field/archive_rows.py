"""Archives, links and folders."""

import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from bench import Bench
from picture_inputs import at, link, pipe
from rows import Comes, Refused, Row
from table_inputs import archive, dot, has_paths, has_reject, has_splits, read, read_as, splits, table

from engagement_recognition.data.readers.video_tables import read_video_table
from engagement_recognition.data.schema import LabelledSource
from engagement_recognition.inference.input_files import list_files
from engagement_recognition.processor.media_inputs import load_picture

VIDEO_SUFFIXES = (
    ".mp4",
    ".flv",
    ".wmv",
    ".asf",
    ".mpg",
    ".mpeg",
    ".3gp",
    ".3g2",
    ".mts",
    ".m2ts",
    ".ts",
    ".ogv",
    ".vob",
)
GOOD = ("bored/anna_0.png", "engaged/anna_1.png")


def nameless(name: str) -> Callable[[Path], Path]:
    """An archive with a member whose name is nearly or wholly empty: zipfile writes a longer one, which is cut."""

    def make(folder: Path) -> Path:
        path = archive((zipfile.ZipInfo("xxxxx"), dot(5)))(folder)
        content = path.read_bytes()
        short = name.encode()
        for mark, at_size, fixed in ((b"PK\x03\x04", 26, 30), (b"PK\x01\x02", 28, 46)):
            place = content.index(b"xxxxx") - fixed if mark == b"PK\x03\x04" else content.rindex(b"xxxxx") - fixed
            assert content[place : place + 4] == mark
            # The rest of the name becomes its extra field, which nobody reads.
            sizes = len(short).to_bytes(2, "little") + (5 - len(short)).to_bytes(2, "little")
            content = content[: place + at_size] + sizes + content[place + at_size + 4 :]
            content = content[: place + fixed] + short + b"\0" * (5 - len(short)) + content[place + fixed + 5 :]
        path.write_bytes(content)
        return path

    return make


def linked(name: str, target: str = "/etc/passwd", kind: int = stat.S_IFLNK) -> tuple[zipfile.ZipInfo, bytes]:
    member = zipfile.ZipInfo(name)
    member.create_system, member.external_attr = 3, (kind | 0o777) << 16
    return member, target.encode()


def folder_of(*more: Callable[[Path], object]) -> Callable[[Path], Path]:
    """A row's `make`: a folder of two good pictures below another, and more."""

    def make(folder: Path) -> Path:
        root = folder / "set"
        for number, name in enumerate(GOOD):
            at(root, name, dot(number))
        for add in more:
            add(root)
        return root

    return make


def hub_cache(folder: Path) -> Path:
    """A snapshot of a data set: links into blobs that bear no endings."""
    snapshot = folder / "datasets--a--b/snapshots/4f2a"
    for number, name in enumerate(GOOD):
        at(folder, f"datasets--a--b/blobs/{number:064x}", dot(number))
        (snapshot / name).parent.mkdir(parents=True)
        (snapshot / name).symlink_to(f"../../../blobs/{number:064x}")
    return snapshot


def hub_table(folder: Path) -> Path:
    """The same of a table and its videos."""
    text = "file_name,label,subject_id\na.mp4,bored,anna\nb.mp4,engaged,ben\n"
    for number, (name, content) in enumerate({"videos.csv": text, "a.mp4": "a", "b.mp4": "b"}.items()):
        at(folder, f"blobs/{number}", content.encode())
        (folder / "snapshot").mkdir(exist_ok=True)
        (folder / "snapshot" / name).symlink_to(f"../blobs/{number}")
    return folder / "snapshot/videos.csv"


def scratch(folder: Path) -> Path:
    """Folders of labels that are links to another disk, and one of them a link to a link."""
    for number, label in enumerate(("bored", "engaged")):
        at(folder, f"scratch/{number}/anna_{number}.png", dot(number))
        (folder / "set").mkdir(exist_ok=True)
        (folder / "set" / label).symlink_to(folder / f"scratch/{number}", target_is_directory=True)
    (folder / "again").symlink_to("set", target_is_directory=True)
    return folder / "again"


def two_ways_round(folder: Path) -> Path:
    """Folders that link to each other."""
    root = folder_of()(folder)
    (root / "bored/other").symlink_to("../engaged", target_is_directory=True)
    (root / "engaged/other").symlink_to("../bored", target_is_directory=True)
    return root


def names_of(bench: Bench, folder: Path) -> list[str]:
    return sorted(path.name for path in list_files([str(folder)], recursive=True))


def videos_of_all_endings(folder: Path) -> Path:
    for number, suffix in enumerate(VIDEO_SUFFIXES):
        at(folder, f"{('bored', 'engaged')[number % 2]}/{number}{suffix.upper() if number % 3 else suffix}", b"x")
    return folder


def is_alike_everywhere(source: LabelledSource) -> bool:
    return source.kind == "videos" and len(source.records) == len(VIDEO_SUFFIXES) and not source.rejects


def may_not_be_read(bench: Bench, path: Path) -> object:
    """As the system says it to whoever is not root."""
    with patch("builtins.open", side_effect=PermissionError(13, "Permission denied", str(path))):
        return load_picture(path)


def one_bad(bench: Bench, folder: Path) -> object:
    """A folder of which one file cannot be opened, whoever asks."""
    link(folder, "locked.png", "nowhere.png")
    return bench.command("predict", "--faces", folder)


def goes_on(said: object) -> bool:
    code, out, err = said  # type: ignore[misc]
    return code == 1 and out.count("the whole picture") == 2 and "locked.png" in err and "no such file" in err


class _Some:
    """Of a command: some came out, others were refused in a line each."""

    def check(self, call: Callable[[], object]) -> None:
        assert goes_on(said := call()), said


def gone_above(bench: Bench, folder: Path) -> object:
    """A path whose folder nobody may look into."""
    real = Path.is_dir

    def refuse(path: Path) -> bool:
        if "secret" in path.name:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    with patch.object(Path, "is_dir", refuse):
        return [path.name for path in list_files([str(folder / "secret.mp4"), str(folder / "set")])]


BAD = {
    "leads above": (("../../bored/out.png", b"x"), "lead outside"),
    "leads above within": (("bored/../../out.png", b"x"), "lead outside"),
    "absolute": (("/bored/out.png", b"x"), "lead outside"),
    "a drive": (("C:/bored/out.png", b"x"), "lead outside"),
    "backslashes": (("bored\\..\\..\\out.png", b"x"), "lead outside"),
    "a line break": (("bored/a\nb.png", b"x"), "control characters"),
    "a link": (linked("bored/out.png"), "a link or a device"),
    "a device": (linked("bored/out.png", "", stat.S_IFCHR), "a link or a device"),
    "a pipe": (linked("bored/out.png", "", stat.S_IFIFO), "a link or a device"),
    "a second of its name": ((GOOD[0], b"x"), "second file"),
    "a second spelt otherwise": (("./bored//anna_0.png", b"x"), "second file"),
    "a bomb": (("bored/out.png", bytes(65 << 20)), "ompressed more than"),
}
ROWS = [
    *(Row(f"zip: {name}", archive(member), read, Comes(that=has_reject(told, "set.zip")))
      for name, (member, told) in BAD.items()),
    Row("zip: a member without a name", nameless(""), read, Comes(that=has_reject("An empty name", "set.zip")), 26),
    Row("zip: a member called .", nameless("."), read, Comes(that=lambda source: len(source.records) == 2), 26),
    Row("zip: a member called ./.", nameless("./."), read, Comes(that=lambda source: len(source.records) == 2), 26),
    Row("zip: litter of a Mac", archive(("__MACOSX/bored/._a.png", b"x"), ("bored/.DS_Store", b"x")), read,
        Comes(that=has_paths(*GOOD))),
    Row("zip: under a suffix of none", archive(name="set.data"), read, Comes(that=has_paths(*GOOD))),
    Row("zip: cut", lambda folder: at(folder, "cut.zip", archive()(folder).read_bytes()[:-30]), read,
        Refused(("cut.zip", "truncated", "download it again"))),
    Row("zip: splits of other names", archive(*((f"{split}/{label}/{number}.png", dot(number + 5 * len(split)))
        for split in ("Train_set", "dev") for number, label in enumerate(("bored", "engaged")))), read,
        Comes(that=lambda source: [record.split for record in source.records if "dev/" in record.source_path]
            == ["validation"] * 2), 8),
    Row("a Hub cache's snapshot", hub_cache, read, Comes(that=has_paths(*GOOD)), 17),
    Row("a Hub cache's table", hub_table, read_as("videos"), Comes(that=has_paths("a.mp4", "b.mp4")), 17),
    Row("a Hub cache's snapshot to predict", hub_cache, names_of,
        Comes(that=lambda names: names == ["anna_0.png", "anna_1.png"]), 17),
    Row("folders on a scratch disk", scratch, read, Comes(that=has_paths(*GOOD)), 17),
    Row("folders on a scratch disk to predict", scratch, names_of,
        Comes(that=lambda names: names == ["anna_0.png", "anna_1.png"]), 17),
    Row("a link that leads nowhere", folder_of(lambda root: link(root, "bored/gone.png", "nothing.png")), read,
        Comes(that=has_reject("link that leads nowhere")), 17),
    Row("a link to itself among pictures", folder_of(lambda root: link(root, "bored/loop.png", "loop.png")), read,
        Comes(that=has_reject("link that leads nowhere")), 26),
    Row("a link to the folder above", folder_of(lambda root: link(root, "bored/up", "../..")), read,
        Comes(that=has_reject("holds the link itself")), 26),
    Row("a link to the root of all", folder_of(lambda root: link(root, "bored/all", "/")), read,
        Comes(that=has_reject("holds the link itself")), 26),
    Row("folders that link to each other", two_ways_round, read, Comes(that=lambda source: len(source.records) == 2),
        26),
    Row("a pipe among pictures", folder_of(lambda root: pipe(root, "bored/a.png")), read,
        Comes(that=has_reject("device or pipe")), 27),
    Row("a pipe as a data set", lambda folder: pipe(folder, "set.csv"), read_as("videos"),
        Refused(("set.csv", "no CSV table", "check the path")), 27),
    Row("a pipe as votes", lambda folder: pipe(folder, "votes.csv") and splits("train", "test")(folder),
        lambda bench, folder: read_as("fer2013", votes=folder / "votes.csv")(bench, folder), Refused(("2 labels",)),
        27),
    Row("a video's every ending", videos_of_all_endings, read, Comes(that=is_alike_everywhere), 18),
    Row("a video's every ending to predict", videos_of_all_endings, names_of,
        Comes(that=lambda names: len(names) == len(VIDEO_SUFFIXES)), 18),
    Row("one unreadable picture among others",
        folder_of(lambda root: at(root, "a.png", dot(1)) and at(root, "b.png", dot(2))),
        one_bad, _Some(), 29),
    Row("a picture that may not be read", lambda folder: at(folder, "a.png", dot()), may_not_be_read,
        Refused(("a.png", "Permission denied", "who may read it")), 29),
    Row("a folder above that is closed", folder_of(), gone_above,
        Comes(that=lambda names: names[0] == "secret.mp4" and len(names) == 2), 29),
    Row("a name that is not UTF-8 among pictures",
        folder_of(lambda root: at(root, b"bored/caf\xe9.png".decode("utf-8", "surrogateescape"), dot(3))), read,
        Comes(that=has_reject("not in UTF-8")), 30),
    Row("a name with a line break among pictures", folder_of(lambda root: at(root, "bored/a\nb.png", dot(3))), read,
        Comes(that=has_reject("control characters")), 30),
    Row("a table of a video that is a pipe",
        lambda folder: pipe(folder, "c.mp4") and table("clips.csv",
        "path,label,subject_id\na.mp4,bored,anna\nc.mp4,engaged,ben\n")(folder),
        lambda bench, path: read_video_table(path), Comes(that=has_reject("c.mp4")), 27),
    Row("no split anywhere", folder_of(), read, Comes(that=has_splits(train=1, validation=1)), 8),
]  # fmt: skip
