"""A table's bytes → its text, in UTF-8 or UTF-16; workbooks are refused."""

import codecs
import io
from typing import BinaryIO

from ...processor.input_errors import DataError

_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_WORKBOOKS = {b"PK\x03\x04": "an Excel or OpenDocument workbook", b"\xd0\xcf\x11\xe0": "an Excel workbook"}
WORKBOOK_SUFFIXES = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods", ".numbers")


def open_text(file: BinaryIO, name: str) -> io.TextIOWrapper:
    """
    Raises:
        DataError: it is a workbook of a spreadsheet program.
    """
    head = file.read(4)
    file.seek(0)
    if head in _WORKBOOKS:
        raise workbook_error(name, _WORKBOOKS[head])
    encoding = next((encoding for mark, encoding in _MARKS.items() if head.startswith(mark)), "utf-8-sig")
    if encoding == "utf-8-sig" and len(head) == 4 and head[1::2] == b"\0\0" and b"\0" not in head[::2]:
        encoding = "utf-16-le"  # without a byte order mark
    return io.TextIOWrapper(file, encoding=encoding, newline="")


def workbook_error(name: str, found: str = "a workbook of a spreadsheet program") -> DataError:
    """The error for a workbook."""
    return DataError(f"{name} is {found}, not a text table; save it as CSV UTF-8 and pass that.")
