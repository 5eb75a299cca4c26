"""Renews what docs/results.md says of the keys of results.json, from the records that read and write it.

The tables stand between the comments `<!-- keys -->` and `<!-- /keys -->`, some keys of the demo's file between
`<!-- example -->` and `<!-- /example -->`; a test holds the page to them.
"""

import ast
import inspect
import json
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

from pydantic.main import IncEx

from engagement_recognition.data.json_records import Record
from engagement_recognition.evaluation.results_schema import Results

PAGE = Path(__file__).parents[1] / "docs/results.md"
DEMO = PAGE.parent / "measured/demo_engagement.json"
# Keys of the demo's file that are shown.
SHOWN: IncEx = {
    "version": True,
    "stage": True,
    "label_names": True,
    "seed": True,
    "data": {"kind", "drawn", "label_scheme", "subjects"},
    "measurements": {
        0: {
            "split": True,
            "evaluation": {
                "num_clips": True,
                "scores": {"macro_f1", "balanced_accuracy", "accuracy", "auroc"},
                "majority_baseline": {"predicts", "macro_f1"},
                "intervals": {"resampled": True, "intervals": {"macro_f1": {"value", "lower", "upper"}}},
                "decision": {"threshold": True, "answers": True},
            },
        }
    },
}
SIMPLE = {"string": "string", "integer": "int", "boolean": "bool", "null": "null"}
Schema = Mapping[str, Any]  # of JSON Schema, as pydantic gives it


def renewed(page: str) -> str:
    """docs/results.md with its example and tables as they must be."""
    records = all_records()
    tables = "\n\n".join(describe(record, records) for record in records)
    page = with_part(page, "keys", f"\n{tables}\n\n")
    return with_part(page, "example", f"```json\n{example()}\n```\n")


def with_part(page: str, name: str, content: str) -> str:
    """The page with this between the two comments of that name."""
    start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    before, found, rest = page.partition(start)
    _, found_end, after = rest.partition(end)
    if not (found and found_end):
        raise ValueError(f"Expected {start.strip()} and {end.strip()} in {PAGE.name}, each on a line of its own.")
    return f"{before}{start}{content}{end}{after}"


def example() -> str:
    """Some keys of the demo's results, floats with three decimals, objects without others in them on one line."""
    results = Results.model_validate_json(DEMO.read_text(encoding="utf-8"))
    shown = json.loads(results.model_dump_json(include=SHOWN), parse_float=lambda number: round(float(number), 3))
    text = json.dumps(shown, indent=2)
    text = re.sub(r"\{[^{}]*\}|\[[^][{}]*\]", lambda found: " ".join(found[0].split()), text)
    return text.replace("[ ", "[").replace(" ]", "]")


def all_records() -> list[type[Record]]:
    """`Results`, and all that stand in it, those nearest to it first."""
    found: list[type[Record]] = [Results]
    for record in found:  # which grows
        for field in record.model_fields.values():
            found += [inner for inner in dict.fromkeys(records_in(field.annotation)) if inner not in found]
    return found


def records_in(annotation: object) -> Iterator[type[Record]]:
    """Such as `Scores` in `dict[str, Scores] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Record):
        yield annotation
    for inner in get_args(annotation):
        yield from records_in(inner)


def describe(record: type[Record], records: list[type[Record]]) -> str:
    """A heading, what the record is, and a table of its keys but for those of the record that it extends."""
    schema = record.model_json_schema()
    base = next((base for base in record.__mro__[1:] if base in records), None)
    inherited = base.model_fields if base else {}
    texts = told_of_keys(record)
    rows = [
        f"| `{key}` | {in_words(told)} | {one_line(texts.get(key, ''))} | {default_of(told)} |"
        for key, told in schema["properties"].items()
        if key not in inherited
    ]
    extends = [f"All of {link(base.__name__)}, and:", ""] if base else []
    header = ("| key | type | what | default |", "|---|---|---|---|")
    return "\n".join([f"### {record.__name__}", "", one_line(schema["description"]), "", *extends, *header, *rows])


def told_of_keys(record: type[Record]) -> dict[str, str]:
    """Key → the text on the line below it, also of the records that it extends."""
    told: dict[str, str] = {}
    for kind in reversed(record.__mro__[: record.__mro__.index(Record)]):
        (found,) = ast.parse(inspect.getsource(kind)).body
        told |= {
            key.target.id: text.value.value
            for key, text in pairwise(found.body)
            if isinstance(key, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
        }
    return told


def in_words(told: Schema) -> str:
    """A type, as a reader of JSON understands it."""
    if "$ref" in told:
        name = told["$ref"].rpartition("/")[2]
        return "anything" if name == "JsonValue" else link(name)
    if "enum" in told or "const" in told:
        return " or ".join(f"`{json.dumps(value)}`" for value in told.get("enum", [told.get("const")]))
    if "anyOf" in told or "oneOf" in told:
        names = list(dict.fromkeys(in_words(one) for one in told.get("anyOf") or told["oneOf"]))
        return " or ".join(name for name in names if not (name == "int" and "number" in names))
    if told["type"] == "array":
        return f"list of {in_words(told['items'])}"
    if told["type"] == "object":
        return f"object of {in_words(told['additionalProperties'])}"
    return number_in_words(told) if told["type"] == "number" else SIMPLE[told["type"]]


def number_in_words(told: Schema) -> str:
    """Bounds are told as they are meant, without what rounding needs."""
    if "exclusiveMinimum" in told:
        return f"number above {round(told['exclusiveMinimum'])}"
    if "maximum" in told:
        bounds = round(told["minimum"]), round(told["maximum"])
        return "share" if bounds == (0, 1) else "number from {} to {}".format(*bounds)
    return f"number from {round(told['minimum'])}" if "minimum" in told else "number"


def default_of(told: Schema) -> str:
    """What a key that is left out means; nothing where it may not be, or can hold nothing else."""
    return f"`{json.dumps(told['default'])}`" if "default" in told and "const" not in told else ""


def link(name: str) -> str:
    return f"[{name}](#{name.lower()})"


def one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
