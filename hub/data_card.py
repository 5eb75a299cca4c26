"""The card of a data set: `data_card.md` filled from its description and audit, with the Hub's front matter."""

import re
from pathlib import Path

import jinja2
from huggingface_hub import DatasetCardData

from ..data.audit.verdicts import AuditRecord
from ..data.parquet_tables import TABLES_FOLDER
from ..data.preparation.description import DatasetDescription
from ..data.preparation.prepared_data import PreparedData
from ..data.schema import LEVELS, OWN_LABELS
from ..evaluation.markdown import escape_markdown, markdown_table
from .model_files import CARD_FILE
from .use_limits import LIMITS_AND_WHY

_TEMPLATE = Path(__file__).with_suffix(".md")
_UNKNOWN = "unknown"  # the Hub's spelling
_SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B")


def write_data_card(
    folder: Path, prepared: PreparedData, audited: AuditRecord, repository: str, license_name: str | None
) -> None:
    """Write the folder's README.md.

    Args:
        license_name: the data's licence in the Hub's spelling; None: unknown.
    """
    described, is_rated = prepared.description, "binary" in prepared.label_schemes
    counted = described.splits.values()
    labels = prepared.label_names(OWN_LABELS)
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
    environment.filters["text"] = escape_markdown
    card = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        card_data=_front_matter(prepared, repository, license_name or _UNKNOWN).to_yaml(),
        title=escape_markdown(repository.rpartition("/")[2]),
        repository=repository,
        license_name=license_name or _UNKNOWN,
        data=described,
        windows=f"{sum(counts.windows for counts in counted):,}",
        clips=f"{sum(counts.clips for counts in counted):,}",
        people=sum(counts.subjects for counts in counted),
        labels=[escape_markdown(label) for label in labels],
        rated=is_rated,
        counts=_counts(described, labels, is_rated),
        audit=audited,
        must_not=LIMITS_AND_WHY,
    )
    (folder / CARD_FILE).write_text(re.sub(r"\n{3,}", "\n\n", card), encoding="utf-8")


def _counts(described: DatasetDescription, labels: list[str], is_rated: bool) -> str:
    """A Markdown table, one row per split."""
    header = ["split", "clips", "windows", "known people", *labels]
    header += [f"engagement {level}" for level in LEVELS] if is_rated else []
    rows = []
    for split, counts in described.splits.items():
        by_label, by_level = counts.label or {}, counts.engagement or {}
        found = [counts.clips, counts.windows, counts.subjects, *(by_label.get(label, 0) for label in labels)]
        found += [by_level.get(str(level), 0) for level in range(len(LEVELS))] if is_rated else []
        rows.append([split, *(f"{count:,}" for count in found)])
    return markdown_table(header, rows)


def _front_matter(prepared: PreparedData, repository: str, license_name: str) -> DatasetCardData:
    described = prepared.description
    num_rows = sum(len(rows) for rows in prepared.splits.values())
    files = [{"split": split, "path": f"{TABLES_FOLDER}/{split}-*"} for split in prepared.splits]
    return DatasetCardData(
        license=license_name,
        pretty_name=repository.rpartition("/")[2],
        task_categories=["image-classification" if described.media == "picture" else "video-classification"],
        size_categories=_SIZES[min(max(len(str(num_rows)) - 3, 0), len(_SIZES) - 1)],
        tags=["engagement-recognition", "face", *(["synthetic"] if described.drawn else [])],
        configs=[{"config_name": "default", "data_files": files}],
    )
