"""`results.json`, the versioned file of measured results in a model's folder, which later commands extend.

docs/results.md, generated from `results_schema`, describes its content. A file of version 2 is converted on reading;
the first command that writes saves it as version 3.
"""

from pathlib import Path

from ..data.json_records import parse_record, read_text, refusing, version_of, write_record
from ..processor.input_errors import ModelLoadError
from .results_schema import Results
from .results_v2 import ResultsV2

RESULTS_FILE = "results.json"
_EXPECTED = "measured results"
_REMEDY = "correct it, or train, import or evaluate the model again"


def write_results(folder: Path, results: Results) -> None:
    """
    Raises:
        DataError: it cannot be written.
    """
    write_record(folder / RESULTS_FILE, results)


def read_results(folder: Path) -> Results:
    """Read and check the `results.json` of a model's folder.

    Raises:
        ModelLoadError: the file is missing, has a different version or unexpected content; the key is named.
    """
    path = folder / RESULTS_FILE
    text = read_text(path, ModelLoadError, _EXPECTED, "check the path, or train or import the model again")
    if version_of(text) == 2:
        with refusing(text, path, ModelLoadError, _EXPECTED, _REMEDY):
            return ResultsV2.model_validate_json(text).upgraded()
    results = parse_record(text, path, Results, ModelLoadError, _EXPECTED, _REMEDY)
    if "version" not in results.model_fields_set:
        raise ModelLoadError(f"Expected {_EXPECTED} in {path}, got no version; {_REMEDY}.")
    return results
