"""Labelled face pictures → one table: FER2013's parquet files, or class folders with split folders.

Class folders are `<train|validation|test>/<label>/<picture>`, what `engagement draw --format expressions` writes and
what most expression sets unpack to.
"""

import hashlib
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from datasets.exceptions import DatasetGenerationError

from ..processor.input_errors import DataError
from .schema import SPLITS

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
FEATURES = {"picture": Value("binary"), "picture_id": Value("string")}


def load_face_pictures(source: Path) -> DatasetDict:
    """Columns `picture` (the encoded file's bytes), `label` (ClassLabel), `picture_id`; one split each, as they come.

    Raises:
        DataError: the folder is missing, or holds neither parquet files nor class folders.
    """
    if not source.is_dir():
        raise DataError(f"Expected a folder of labelled face pictures at {source}, found none; check the path.")
    if any(source.glob("*.parquet")):
        return _load_parquet(source)
    if any((source / split).is_dir() for split in SPLITS):
        names = sorted(path.name for path in source.glob("train/*") if path.is_dir())
        return DatasetDict({split: _load_class_folders(source / split, names) for split in SPLITS})
    raise DataError(
        f"Expected {source} to hold {{train,validation,test}}.parquet, or folders train, validation and test with a "
        "folder for each label; found neither."
    )


def _load_parquet(source: Path) -> DatasetDict:
    files = {split: str(source / f"{split}.parquet") for split in SPLITS}
    absent = [path for path in files.values() if not Path(path).is_file()]
    if absent:
        raise DataError(
            f"Expected {absent[0]}, found none; one parquet file for each of {', '.join(SPLITS)} is needed."
        )
    tables = {}
    for split, path in files.items():
        try:
            table = Dataset.from_parquet(path)
        except (DatasetGenerationError, OSError, ValueError) as error:
            raise DataError(f"Expected a parquet file in {path}, could not read it: {error}") from error
        if not {"image", "label"} <= set(table.column_names) or not isinstance(table.features["label"], ClassLabel):
            raise DataError(f"Expected columns image and label (ClassLabel) in {path}, got {table.features}.")
        tables[split] = _from_image_column(table, split)
    return DatasetDict(tables)


def _from_image_column(table: Dataset, split: str) -> Dataset:
    """The stored bytes as they are: an Image column would decode each picture and encode it again."""
    pictures = [row["bytes"] for row in table.data.column("image").to_pylist()]
    features = Features({**FEATURES, "label": table.features["label"]})
    columns = {
        "picture": pictures,
        "picture_id": [f"{split}/{row}" for row in range(len(pictures))],
        "label": table.data.column("label").to_pylist(),
    }
    return Dataset.from_dict(columns, features=features)


def _load_class_folders(folder: Path, names: list[str]) -> Dataset:
    if not folder.is_dir():
        raise DataError(f"Expected the split folder {folder}, found none.")
    unknown = sorted({path.name for path in folder.iterdir() if path.is_dir()} - set(names))
    if unknown:
        raise DataError(f"Expected the labels of the train folder ({', '.join(names)}), got {unknown} in {folder}.")
    files = [path for path in sorted(folder.glob("*/*")) if path.suffix.lower() in PICTURE_SUFFIXES]
    if not files:
        raise DataError(f"Expected pictures in a folder for each label under {folder}, found none.")
    columns = {
        "picture": [path.read_bytes() for path in files],
        "picture_id": [str(path.relative_to(folder.parent)) for path in files],
        "label": [path.parent.name for path in files],
    }
    return Dataset.from_dict(columns, features=Features({**FEATURES, "label": ClassLabel(names=names)}))


def fingerprint_pictures(splits: DatasetDict) -> str:
    """Changes with any picture, label or split; not with the kind of files they came in."""
    digest = hashlib.sha256()
    for split in SPLITS:
        names = splits[split].features["label"].names
        for row in splits[split]:
            digest.update(f"{split}|{names[row['label']]}|".encode() + row["picture"])
    return digest.hexdigest()
