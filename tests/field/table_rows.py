"""Tables, and folders of data."""

import unicodedata
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
from bench import Bench
from picture_inputs import at
from rows import Comes, Refused, Row
from table_inputs import dot, has_paths, has_reject, has_spans, has_splits, read, read_as, splits, table

from engagement_recognition.data.preparation.prepare import PLAN_FILE
from engagement_recognition.data.readers.fer2013 import SIZE_PX
from engagement_recognition.data.schema import LabelledSource
from engagement_recognition.inference.input_files import list_files
from engagement_recognition.processor.input_errors import DataError, RecipeError

HEAD = "path,label,subject_id,start_sec,end_sec\n"
TWO = "path,label,subject_id\na.mp4,bored,anna\nb.mp4,engaged,ben\n"
FORMS = ("é", "ü", "가", "ñ")
DAISEE_HEAD = "ClipID,Boredom,Engagement,Confusion,Frustration \n"


def spans(*rows: str, sep: str = ",") -> Callable[[Path], Path]:
    text = HEAD.replace(",", sep) + "".join(
        sep.join((f"{clip}.mp4", label, clip, row)) + "\n"
        for clip, label, row in zip("ab", ("bored", "engaged"), rows, strict=False)
    )
    return table("clips.csv", text)


def in_other_form(to_table: str, to_disk: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        names = [f"Caf{letter}/{letter}.mp4" for letter in FORMS[:2]]
        for name in names:
            at(folder, unicodedata.normalize(to_disk, name), b"x")
        rows = [f"{name},{label},{label}" for name, label in zip(names, ("bored", "engaged"), strict=True)]
        text = "path,label,subject_id\n" + "\n".join(rows) + "\n"
        return at(folder, "clips.csv", unicodedata.normalize(to_table, text).encode())

    return make


def metadata(head: str, *folders: str, suffix: str = "png") -> Callable[[Path], Path]:
    """A folder as the datasets library has it, with a table in each of `folders`."""

    def make(folder: Path) -> Path:
        for place, name in enumerate(folders):
            rows = []
            for number, label in enumerate(("bored", "engaged")):
                at(folder, f"{name}{label}.{suffix}", dot(2 * place + number))
                rows.append(f"{label}.{suffix},{label},anna_{place}")
            at(folder, f"{name}metadata.csv", "\n".join([head, *rows, ""]).encode())
        return folder

    return make


def fer_rows(columns: str, *rows: str) -> str:
    pixels = " ".join(["7"] * SIZE_PX**2)
    return "\n".join([columns, *(row.replace("PIXELS", pixels) for row in rows), ""])


def fer_table(name: str, columns: str, *rows: str) -> Callable[[Path], Path]:
    return table(name, fer_rows(columns, *rows), files=())


def voted(folder: Path) -> Path:
    """The competition's table, and Microsoft's votes, which are of the other splits' pictures too."""
    at(folder, "train.csv", fer_rows("emotion,pixels", "0,PIXELS", "3,PIXELS").encode())
    head = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
    votes = ["Training,a.png,0,0,0,0,10,0,0,0,0,0", "Training,b.png,0,9,0,0,1,0,0,0,0,0",
             "PublicTest,c.png,9,1,0,0,0,0,0,0,0,0"]  # fmt: skip
    at(folder, "fer2013new.csv", "\n".join([head, *votes, ""]).encode())
    return folder


def parquet(folder: Path) -> Path:
    at(folder, "a.png", dot(1))
    at(folder, "b.png", dot(2))
    rows = {"File_Name": ["a.png", "b.png"], "Label": ["bored", "engaged"], "Subject ID": ["anna", "ben"]}
    pyarrow.parquet.write_table(pyarrow.table(rows), folder / "train.parquet")
    return folder


def daisee(*names: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        for number, name in enumerate(names):
            clip = f"11000{number}1001"
            at(folder, f"DataSet/{name}/{clip[:6]}/{clip}/{clip}.mts", b"x")
            at(folder, f"Labels/{name}Labels.csv", f"{DAISEE_HEAD}{clip}.avi,0,3,0,0\n".encode())
        return folder

    return make


def published(name: str, content: bytes, *files: str) -> Callable[[Path], Path]:
    """A row's `make`: a folder with somebody's list, and files that nothing looks into."""

    def make(folder: Path) -> Path:
        for number, file in enumerate(files):
            at(folder, file, dot(number))
        at(folder, name, content)
        return folder

    return make


def has_labels(kind: str, *labels: str) -> Callable[[LabelledSource], bool]:
    """A row's `that`: records of this kind with these labels, in order."""
    return lambda source: (source.kind, [record.label for record in source.records]) == (kind, list(labels))


def listed(bench: Bench, path: Path) -> list[str]:
    return [file.name for file in list_files([str(path)])]


def prepared_again(spoil: Callable[[Path], object]) -> Callable[[Bench, Path], object]:
    """Prepares, edits a file of the result, and prepares (or reads) again."""

    def run(bench: Bench, folder: Path) -> object:
        output = folder.parent / "prepared"
        command = ("prepare", "images", folder, "--output", output)
        assert bench.command(*command).code == 0
        spoil(output)
        return bench.command(*command)

    return run


def three_splits(folder: Path) -> Path:
    return splits("train", "validation", "test")(folder / "set")


def prepare_into(place: str) -> Callable[[Bench, Path], object]:
    return lambda bench, folder: bench.command("prepare", "images", folder, "--output", place)


ALL = {"train": 2, "validation": 2, "test": 2}
ROWS = [
    *(
        Row(f"splits {', '.join(names)}", splits(*names), read, Comes(that=has_splits(**ALL)), 8)
        for names in (
            ("train", "dev", "test"), ("Train_set", "val_set", "test_set"), ("training", "valid", "testing"),
            ("TRAIN", "Validation", "eval"), ("train-data", "devel", "evaluation"), ("01_train", "02 val", "03.test"),
            ("trainset", "DevSet", "TestSet"), ("Training", "PublicTest", "PrivateTest"),
            ("set/train", "set/dev", "set/test"),
        )
    ),
    Row("splits dev and val", splits("train", "dev", "val"), read,
        Refused(("validation", "dev and val", "rename one")), 8),
    Row("splits test and eval", splits("train", "test", "eval"), read, Refused(("test", "rename one"), DataError), 8),
    Row("labels that hold a split's word", splits("train_driver", "test_driver", "driver"), read,
        Comes(that=has_splits(train=3, validation=2, test=1)), 8),
    Row("DAiSEE in other words", daisee("train", "dev", "Testing"), read_as(),
        Comes(that=has_splits(train=1, validation=1, test=1)), 8),
    Row("a split's cells",
        table("clips.csv", "path,label,subject_id,split\na.mp4,bored,anna,Train_set\nb.mp4,engaged,ben,dev\n"),
        read, Comes(that=lambda source: {record.split for record in source.records} >= {"train", "validation"}), 8),
    Row("clock times", spans("0:01:23.500,00:02:00", "1:05,1:06.25"), read,
        Comes(that=has_spans((83.5, 120), (65, 66.25))), 19),
    Row("clock times with decimal commas", spans("00:00:01,5;00:00:02,25", "0,5;1,75", sep=";"), read,
        Comes(that=has_spans((1.5, 2.25), (0.5, 1.75))), 19),
    Row("clock times of 75 seconds", spans("0:00:75,0:02:00", "0,1"), read,
        Comes(that=has_reject("start_sec", "'0:00:75'")), 19),
    Row("times with frames", spans("00:00:01:12,00:00:02:00", "0,1"), read,
        Comes(that=has_reject("start_sec", "h:mm:ss")), 19),
    Row("first line sep=;", table("clips.csv", "sep=;\r\n" + TWO.replace(",", ";").replace("\n", "\r\n")), read,
        Comes(that=has_paths("a.mp4", "b.mp4")), 19),
    Row("first line sep=|", table("clips.csv", "SEP=|\n" + TWO.replace(",", "|")), read,
        Comes(that=has_paths("a.mp4", "b.mp4")), 19),
    Row("UTF-16 of Excel, tabs", table("clips.csv", TWO.replace(",", "\t"), encoding="utf-16"), read,
        Comes(that=has_paths("a.mp4", "b.mp4")), 19),
    Row("UTF-16, big end first", table("clips.csv", b"\xfe\xff" + TWO.encode("utf-16-be")), read,
        Comes(that=has_paths("a.mp4", "b.mp4")), 19),
    Row("UTF-16 cut in a letter", table("clips.csv", TWO.encode("utf-16")[:-1]), read,
        Refused(("clips.csv", "CSV UTF-8")), 19),
    Row("Latin-1", table("clips.csv", TWO.replace("anna", "änna"), encoding="latin-1"), read,
        Refused(("clips.csv", "CSV UTF-8")), 19),
    Row("Excel's workbook", table("clips.xlsx", b"PK\x03\x04 a workbook"), read,
        Refused(("clips.xlsx", "save it as CSV")), 19),
    Row("a workbook called csv", table("clips.csv", b"PK\x03\x04 a workbook"), read_as("videos"),
        Refused(("clips.csv",)), 19),
    Row("an old workbook to predict", table("clips.xls", b"\xd0\xcf\x11\xe0 old"), listed,
        Refused(("clips.xls", "save it as CSV")), 19),
    Row("columns in other case",
        table("clips.csv", TWO.replace("path,label,subject_id", " File Name ,LABEL,Subject ID")), read,
        Comes(that=has_paths("a.mp4", "b.mp4")), 19),
    Row("path beside file_name",
        table("clips.csv", "file_name,path,label,subject_id\nx,a.mp4,bored,anna\ny,b.mp4,engaged,ben\n"),
        read, Comes(that=has_paths("a.mp4", "b.mp4")), 19),
    Row("file_name to predict", table("clips.csv", "file_name\na.mp4\nb.mp4\n"), listed,
        Comes(that=lambda names: names == ["a.mp4", "b.mp4"]), 19),
    Row("names composed in the table, apart on disk", in_other_form("NFC", "NFD"), read,
        Comes(that=lambda source: len(source.records) == 2), 19),
    Row("names apart in the table, composed on disk", in_other_form("NFD", "NFC"), read,
        Comes(that=lambda source: len(source.records) == 2), 19),
    Row("a Hub's metadata.csv of pictures", metadata("file_name,label,subject_id", ""), read,
        Comes(that=has_paths("bored.png", "engaged.png")), 19),
    Row("a Hub's metadata.csv in each split", metadata("file_name,label,subject_id", "train/", "dev/", "test/"), read,
        Comes(that=has_splits(**ALL)), 19),
    Row("a Hub's metadata.csv of videos",
        metadata("file_name,label,subject_id", "train/", "validation/", "test/", suffix="mp4"), read,
        Comes(that=has_splits(**ALL)), 19),
    Row("a table without people", table("clips.csv", "file_name,label\na.mp4,bored\nb.mp4,engaged\n"), read,
        Refused(("clips.csv", "subject_id", "--no-subjects")), 19),
    Row("a table whose people nobody knows", table("clips.csv", "file_name,label\na.mp4,bored\nb.mp4,engaged\n"),
        read_as(no_subjects=True),
        Comes(that=lambda source: source.notes.no_subjects and has_paths("a.mp4", "b.mp4")(source)), 19),
    Row("a parquet table with file_name", parquet, read, Comes(that=has_paths("a.png", "b.png")), 19),
    Row("FER2013's train.csv",
        fer_table("train.csv", "emotion,pixels", *(f"{label},PIXELS" for label in (0, 1, 2, 3, 4, 5, 6, 0, 3, 4))),
        read, Comes(that=lambda source: source.kind == "fer2013" and "drawn from train" in str(source.notes.split)),
        22),
    Row("FER2013's train.csv in a folder", lambda folder: voted(folder), read,
        Comes(that=lambda source: len(source.records) == 2), 22),
    Row("FER2013's train.csv with FER+ votes", voted,
        lambda bench, folder: read_as(votes=folder / "fer2013new.csv")(bench, folder),
        Comes(that=lambda source: all(record.label_scores for record in source.records)), 22),
    Row("FER2013 with its pixels before its labels",
        fer_table("icml_face_data.csv", "emotion, Usage, pixels", "0,Training,PIXELS", "3,PublicTest,PIXELS",
        "4,PrivateTest,PIXELS"), read, Comes(that=has_splits(train=1, validation=1, test=1)), 22),
    Row("FER2013's test.csv", fer_table("test.csv", "pixels", "PIXELS"), read, Refused(("test.csv", "emotion")), 22),
    Row("EngageNet's table as a workbook",
        published("train_engagement_labels.xlsx", b"PK\x03\x04", "Train/subject_7_x_vid_0_0.mp4"), read,
        Refused(("train_engagement_labels.xlsx", "save it")), 19),
    Row("EngageNet's table with an index and other capitals",
        published("Val_engagement_labels.csv",
        b"\xef\xbb\xbf,Chunk,Label\r\n0,Subject_7_x_vid_0_0.MP4,Highly Engaged \r\n",
        "Validation/subject_7_x_vid_0_0.mp4"), read, Comes(that=has_labels("engagenet", "highly-engaged")), 19),
    Row("AffectNet's list without a header",
        published("validation.csv", b"1/a.png,0,0,8,8,1;2,7,0.1,0.1\n1/b.png,NULL,NULL,NULL,NULL,NULL,10,-2,-2\n",
        "Images/1/a.png", "Images/1/b.png"), read, Comes(that=has_labels("affectnet", "contempt")), 19),
    Row("RAF-DB's list with blanks and CRLF",
        published("EmoLabel/list_patition_label.txt", b"train_00001.jpg 4 \r\ntest_0001.jpg\t1\r\n\r\n",
        "Image/aligned/train_00001_aligned.jpg", "Image/aligned/test_0001_aligned.jpg"), read,
        Comes(that=has_labels("rafdb", "happy", "surprise")), 19),
    Row("RAF-DB as a copy goes round",
        published("train_labels.csv", b"image,label\ntrain_00001_aligned.jpg,4\n",
        "DATASET/train/4/train_00001_aligned.jpg", "DATASET/train/7/train_00002_aligned.jpg"), read,
        Comes(that=has_labels("rafdb", "happy", "neutral")), 8),
    Row("a subject pattern without end", lambda folder: at(folder, f"bored/{'a' * 40}!.png", dot(1)) and
        at(folder, "engaged/b.png", dot(2)) and folder, read_as(subject_pattern="^(a+)+$"),
        Refused(("(a+)+$", "10 s", "repeats within repeats"), RecipeError), 27, slow=True),
    Row("a subject pattern that is none", splits("train", "test"), read_as(subject_pattern="("),
        Refused(("regular expression",), RecipeError), 27),
    Row("a plan that was edited", three_splits,
        prepared_again(lambda output: (output / PLAN_FILE).write_bytes(b"\xff\0no plan")),
        Refused(("prepared", "choose another folder, or delete")), 33),
    Row("a description that was edited", three_splits,
        prepared_again(lambda output: (output / "dataset.json").write_text('{"version": 4}')),
        Refused(("dataset.json", "prepare it again")), 33),
    Row("a description that is no JSON", three_splits,
        prepared_again(lambda output: (output / "dataset.json").write_bytes(b"\xff\xfe")),
        Refused(("dataset.json", "prepare it again")), 33),
    Row("a place that nobody can write to", three_splits, prepare_into("/proc/none/prepared"),
        Refused(("/proc/none/prepared", "choose another place")), 32),
    Row("a place below a file", three_splits, lambda bench,
        folder: prepare_into(f"{folder}/train/bored/anna_00.png/x")(bench, folder),
        Refused(("anna_00.png", "choose another place")), 32),
]  # fmt: skip
