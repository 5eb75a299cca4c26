"""Archives from anywhere: what is safe is read, the rest is refused member by member, and nothing reaches the disk."""

import io
import stat
import struct
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import pytest

from engagement_recognition.data.readers.class_folders import read_class_folders
from engagement_recognition.data.readers.file_trees import MAX_FILE_BYTES, fetch_file, open_tree, prefix_above
from engagement_recognition.data.schema import LabelledSource
from engagement_recognition.processor.input_errors import ArchiveError, DataError

GOOD = {"engaged/anna_1.png": b"one", "bored/ben_1.png": b"two"}


def write_zip(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    """The two good pictures, then whatever a test adds."""
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", method) as archive:
        warnings.simplefilter("ignore")  # of a second member of one name
        for name, content in (*GOOD.items(), *members):
            archive.writestr(name, content)
    return path


def link_to(target: str) -> tuple[zipfile.ZipInfo, bytes]:
    member = zipfile.ZipInfo("bored/link.png")
    member.create_system, member.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return member, target.encode()


def patch_directory(path: Path, name: str, offset: int, value: bytes) -> None:
    """Change a field of a member's entry in the archive's directory."""
    content = bytearray(path.read_bytes())
    start = content.rindex(name.encode()) - 46  # the entry's fixed part is 46 bytes long
    assert content[start : start + 4] == b"PK\x01\x02"
    content[start + offset : start + offset + len(value)] = value
    path.write_bytes(content)


def spoil(path: Path, kind: str) -> Path:
    """An archive with one bad member beside two good ones."""
    added = {
        "leaves the root": ("../../bored/out.png", b"out"),
        "absolute": ("/bored/out.png", b"out"),
        "drive": ("C:/bored/out.png", b"out"),
        "backslashes": ("bored\\..\\..\\out.png", b"out"),
        "control character": ("bored/a\nb.png", b"out"),
        "link": link_to("/etc/passwd"),
        "second of its name": ("bored/ben_1.png", b"another"),
        "second spelt otherwise": ("./bored//ben_1.png", b"another"),
        "bomb": ("bored/bomb.png", bytes(65 << 20)),
    }
    if kind in added:
        return write_zip(path, added[kind])
    write_zip(path, ("bored/zoe.png", b"three"))
    if kind == "encrypted":
        patch_directory(path, "bored/zoe.png", 8, struct.pack("<H", 1))
    elif kind == "larger than memory":
        patch_directory(path, "bored/zoe.png", 24, struct.pack("<L", MAX_FILE_BYTES + 1))
    elif kind == "unknown compression":
        patch_directory(path, "bored/zoe.png", 10, struct.pack("<H", zipfile.ZIP_LZMA))
    return path


def check_good_ones(source: LabelledSource) -> None:
    assert [record.clip_id for record in source.records] == sorted(GOOD)
    assert {record.clip_id: source.read(record) for record in source.records} == GOOD


@pytest.mark.parametrize(
    "kind",
    [
        "leaves the root",
        "absolute",
        "drive",
        "backslashes",
        "control character",
        "link",
        "second of its name",
        "second spelt otherwise",
        "bomb",
        "encrypted",
        "larger than memory",
        "unknown compression",
    ],
)
def test_a_bad_member_is_one_reject_and_the_rest_is_read(kind: str, tmp_path: Path):
    source = read_class_folders(spoil(tmp_path / "set.zip", kind))
    (reject,) = source.rejects
    assert reject.stage == "archive" and reject.reason.count("\n") == 0 and "set.zip" in reject.reason
    check_good_ones(source)
    assert [path.name for path in tmp_path.iterdir()] == ["set.zip"]  # nothing was extracted


@pytest.mark.parametrize("damage", ["checksum", "declared too short", "declared too long", "local header"])
def test_a_damaged_member_is_refused_when_it_is_read(damage: str, tmp_path: Path):
    path = write_zip(tmp_path / "set.zip", ("bored/zoe.png", b"three" * 100), method=zipfile.ZIP_STORED)
    if damage == "checksum":
        path.write_bytes(path.read_bytes().replace(b"three", b"eerht", 1))
    elif damage == "local header":
        path.write_bytes(path.read_bytes().replace(b"bored/zoe.png", b"bored/xxx.png", 1))
    else:
        patch_directory(path, "bored/zoe.png", 24, struct.pack("<L", 7 if damage.endswith("short") else 700))
    source = read_class_folders(path)
    damaged = next(record for record in source.records if record.clip_id == "bored/zoe.png")
    with pytest.raises(ArchiveError, match=r"bored/zoe\.png.*set\.zip") as refusal:
        source.read(damaged)
    assert "\n" not in str(refusal.value)
    assert [source.read(record) for record in source.records if record is not damaged] == [b"two", b"one"]


def test_a_stream_longer_than_declared_is_not_unpacked(tmp_path: Path):
    # A directory that calls a bomb small: what is unpacked is bounded by what was declared.
    path = write_zip(tmp_path / "set.zip", ("bored/zoe.png", bytes(20 << 20)))
    patch_directory(path, "bored/zoe.png", 24, struct.pack("<L", 1000))
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveError):
            fetch_file(str(path), "bored/zoe.png")
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["text", "empty", "truncated", "head only", "another suffix"])
def test_what_is_no_archive_is_refused_in_one_line(kind: str, tmp_path: Path):
    whole = write_zip(tmp_path / "whole.zip").read_bytes()
    content = {"text": b"no zip", "empty": b"", "truncated": whole[:-30], "head only": whole[:40]}
    path = tmp_path / ("set.bin" if kind == "another suffix" else "set.zip")
    path.write_bytes(content.get(kind, b"anything"))
    with pytest.raises(DataError, match=r"set\.(zip|bin)") as refusal:
        open_tree(path)
    assert "\n" not in str(refusal.value)


def test_bit_flips_never_end_in_another_kind_of_error(tmp_path: Path):
    whole = write_zip(tmp_path / "whole.zip", ("bored/zoe.png", b"three" * 30)).read_bytes()
    for position in range(0, len(whole), 3):
        path = tmp_path / f"{position}.zip"
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        try:
            tree = open_tree(path)
            for name in tree.names:
                tree.read(name)
        except (ArchiveError, DataError):
            pass


def test_an_archive_is_known_by_its_content_too(tmp_path: Path):
    check_good_ones(read_class_folders(write_zip(tmp_path / "download")))


def test_an_archive_that_changed_is_listed_anew(tmp_path: Path):
    path = write_zip(tmp_path / "set.zip")
    assert len(open_tree(path).names) == 2
    path.unlink()
    write_zip(path, ("bored/zoe.png", b"three"))
    assert open_tree(path).read("bored/zoe.png") == b"three"


def test_members_are_read_with_one_look_at_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, opened = write_zip(tmp_path / "set.zip"), []
    whole = zipfile.ZipFile.__init__
    monkeypatch.setattr(
        zipfile.ZipFile, "__init__", lambda self, *arguments: (opened.append(1), whole(self, *arguments))[1]
    )
    source = read_class_folders(path)
    check_good_ones(source)
    assert len(opened) == 1


def test_litter_of_file_systems_is_left_out(tmp_path: Path):
    litter = ("__MACOSX/bored/._ben_1.png", "bored/.DS_Store", ".git/x.png", "bored/Thumbs.db", "desktop.ini")
    source = read_class_folders(write_zip(tmp_path / "set.zip", *((name, b"") for name in litter)))
    assert source.rejects == []
    check_good_ones(source)


def test_links_in_a_folder_are_followed_and_loops_of_them_end(tmp_path: Path):
    blobs, folder = tmp_path / "blobs", tmp_path / "set"
    blobs.mkdir()
    (blobs / "4f2a").write_bytes(b"three")
    (blobs / "zoe.png").write_bytes(b"four")
    for name, content in GOOD.items():
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(content)
    (folder / "bored/out.png").symlink_to("../../blobs/4f2a")
    (folder / "bored/nowhere.png").symlink_to(folder / "nothing")
    (folder / "bored/itself.png").symlink_to("itself.png")
    (folder / "above").symlink_to(tmp_path, target_is_directory=True)
    (folder / "confused").symlink_to(blobs, target_is_directory=True)
    (folder / "again").symlink_to(folder / "bored", target_is_directory=True)
    source = read_class_folders(folder)
    assert {reject.path for reject in source.rejects} >= {"bored/nowhere.png", "bored/itself.png", "above", "again"}
    assert {reject.stage for reject in source.rejects if reject.path != "confused/4f2a"} == {"archive"}
    read = {record.clip_id for record in source.records}
    assert read == {*GOOD, "bored/out.png", "confused/zoe.png"}


def test_names_that_no_table_could_hold_are_rejected(tmp_path: Path):
    for name, content in GOOD.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(content)
    (tmp_path / "bored" / b"caf\xe9.png".decode("utf-8", "surrogateescape")).write_bytes(b"x")
    (reject,) = read_class_folders(tmp_path).rejects
    reject.path.encode("utf-8")
    assert reject.stage == "archive"


def test_a_folder_s_files_are_paths_and_an_archive_s_are_bytes(tmp_path: Path):
    (tmp_path / "a.txt").write_bytes(b"x")
    assert fetch_file(str(tmp_path), "a.txt") == tmp_path / "a.txt"
    assert isinstance(open_tree(tmp_path).open("a.txt"), io.BufferedReader)
    assert fetch_file(str(write_zip(tmp_path / "set.zip")), "bored/ben_1.png") == b"two"


@pytest.mark.parametrize(
    ("names", "prefix"),
    [
        (["DataSet/a", "Labels/b"], ""),
        (["DAiSEE/DataSet/a", "DAiSEE/Labels/b", "README"], "DAiSEE/"),
        (["copy/x/DataSet/a", "copy/x/Labels/b", "x/DataSet/a", "x/Labels/b"], "x/"),
        (["one/DataSet/a", "two/Labels/b"], None),
        (["MyDataSet/a", "Labels/b"], None),
        ([], None),
    ],
)
def test_the_folder_above_is_found(names: list[str], prefix: str | None):
    assert prefix_above(names, ("DataSet", "Labels")) == prefix
