"""Renews what README.md takes from elsewhere: measured results from docs/measured/ and inference/weights/, use limits
from hub/use_limits.py, also in docs/who_must_not_use_it.md; docs/evidence.md, all of it, from docs/measured/studies/;
docs/performance.md and its picture from docs/measured/speed/.

A part stands between two comments, `<!-- NAME -->` and `<!-- /NAME -->`; a test holds README.md to it. In
docs/measured/studies/ lie copies of what `engagement reproduce` writes: runs/real/clips/study.json as real_clips.json.
"""

import textwrap
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from engagement_recognition.data.json_records import read_record
from engagement_recognition.evaluation.markdown import markdown_table
from engagement_recognition.evaluation.results_file import read_results
from engagement_recognition.evaluation.results_schema import Results
from engagement_recognition.evaluation.score_records import Difference
from engagement_recognition.hub.use_limits import EXPLAINED_IN, MUST_NOT_BE_USED, WHAT_IT_IS
from engagement_recognition.inference.shipped_model import shipped_expression_model
from engagement_recognition.processor.input_errors import DataError
from engagement_recognition.studies.evidence import render_contrasts, render_evidence
from engagement_recognition.studies.speed_page import render_performance, save_speed_figure
from engagement_recognition.studies.speed_record import SpeedRecord
from engagement_recognition.studies.study_records import StudyRecord
from engagement_recognition.studies.table import verdict

ROOT = Path(__file__).parents[1]
EVIDENCE, STUDIES = "docs/evidence.md", "docs/measured/studies"
SPEED, PERFORMANCE, SPEED_PICTURE = "docs/measured/speed/benchmark.json", "docs/performance.md", "performance.png"
_COLUMNS = (
    "model", "data", "labels", "test clips", "people", "macro-F1 (95 % interval over people)", "majority's macro-F1",
    "balanced accuracy", "AUROC",
)  # fmt: skip


def renewed(readme: str) -> str:
    """README.md with each of its parts as it must be."""
    studies = read_studies(ROOT / STUDIES)
    parts = {
        "evidence": render_contrasts(studies, EVIDENCE, answer(studies)),
        "measured": results_table(ROOT / "docs/measured"),
        "box": describe_box(shipped_expression_model()),
        "limits": MUST_NOT_BE_USED,
    }
    for name, text in parts.items():
        readme = filled(readme, name, text)
    return readme


def filled(page: str, name: str, text: str) -> str:
    """The page with `text` between the two comments of that name."""
    before, start, rest = page.partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition(f"<!-- /{name} -->\n")
    if not (start and end):
        raise ValueError(f"The page lacks <!-- {name} --> or <!-- /{name} -->; put each on a line of its own.")
    return f"{before}{start}\n{text}\n\n{end}{after}"


def evidence_page() -> str:
    """docs/evidence.md."""
    studies = read_studies(ROOT / STUDIES)
    return render_evidence(studies, answer(studies))


def answer(studies: Mapping[str, StudyRecord]) -> str:
    """The question of docs/evidence.md, answered in words; a ValueError if the verdicts are no longer these."""
    by_name = {record.name: record for record in studies.values()}

    def found(study: str, contrast: str, expected: str) -> Difference:
        (judged,) = (each.scores[0] for each in by_name[study].contrasts if each.name == contrast)
        if not verdict(judged).startswith(expected) or not isinstance(judged.paired, Difference):
            raise ValueError(f"{study}, {contrast}: expected {expected}, got {verdict(judged)}; rewrite the answer.")
        return judged.paired

    first = [found(f"real/{name}", "expressions first", "helps") for name in ("crops", "held_back")]
    for study in ("real/clips", "real/held_back_clips"):
        found(study, "time: LSTM over the mean", "not shown")
        found(study, "more than the last crop: LSTM over it alone", "not shown")
    for head in ("LSTM", "transformer"):
        found("order", f"time helps: {head} over the mean", "helps")
    gains = [f"{each.value:.3f} higher (95 % interval {each.in_words('unknown')})" for each in first]
    lowest, highest = (f"{score:.3f}" for score in sorted(each.second for each in first))
    in_words = (
        "**In short.** On single real faces, training on expressions first helps: AUROC is "
        f"{gains[0]} in folds of people and {gains[1]} on people held back to the end. It stays low: {lowest} and "
        f"{highest}, where 0.5 is chance. On real faces it is not shown that a temporal head helps: the LSTM is "
        "not shown to be better than a mean over time, nor than the last crop alone. On drawn clips whose label "
        "depends only on the order of the frames, temporal heads help, as they must. `real/crops`, `real/clips` and "
        "`real/held_back*` are [DAiSEE](https://arxiv.org/abs/1609.01885), `real/wacv*` is WACV 2016 (Kamath et al.)."
    )
    return textwrap.fill(in_words, 120, break_on_hyphens=False)


def with_limits(page: str) -> str:
    """docs/who_must_not_use_it.md with the one text on use limits."""
    return filled(page, "limits", f"{WHAT_IT_IS}\n\n**What it must not be used for.**\n\n{MUST_NOT_BE_USED}")


def read_studies(folder: Path) -> dict[str, StudyRecord]:
    """By address as seen from docs/, sorted; none where there is no such folder."""
    read = partial(read_record, kind=StudyRecord, error=DataError, expected="a study's record", remedy="run it again")
    return {f"measured/{folder.name}/{path.name}": read(path) for path in sorted(folder.glob("*.json"))}


def read_speed() -> SpeedRecord:
    """What `engagement benchmark --output` wrote, of the machine that docs/performance.md tells of."""
    return read_record(ROOT / SPEED, SpeedRecord, DataError, "a benchmark", "run it again")


def describe_box(folder: Path) -> str:
    """The measured scores of the bundled expression model, in words."""
    results = read_results(folder)
    measured = results.measured_on("test")
    if measured is None:
        raise DataError(f"Expected scores on test in {folder}, found none.")
    test, clean = measured.evaluation, measured.without_duplicates
    accuracy = test.intervals.intervals["accuracy"]
    between = f"{_percent(accuracy.lower)} to {_percent(accuracy.upper)}"
    near = "without images that have a near-duplicate in the training or validation split"
    without = f"; {_percent(clean.scores.accuracy)} % {near}" if clean else ""
    size_mb = (folder / "model.safetensors").stat().st_size / 1e6
    text = (
        f"On the {test.num_clips:,} test images of {measured.data.in_words().upper()} this model ({size_mb:.1f} MB) "
        f"agrees with the label in {_percent(accuracy.value)} % of cases (95 % interval {between} %{without}). Always "
        f'answering "{test.majority_baseline.predicts}" scores {_percent(test.majority_baseline.accuracy)} %. The '
        f"expected calibration error (ECE) is {test.calibration.as_trained.ece:.3f}."
    )
    return textwrap.fill(text, 120, break_on_hyphens=False)


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{share:.1%}".removesuffix("%")


def results_table(folder: Path) -> str:
    """One Markdown row per results file, stage one first."""
    read = partial(read_record, kind=Results, error=DataError, expected="measured results", remedy="measure again")
    runs = {path: read(path) for path in sorted(folder.glob("*.json"))}
    rows = [_row(path, results) for path, results in sorted(runs.items(), key=lambda run: run[1].stage != "expression")]
    return markdown_table(_COLUMNS, rows)


def _row(path: Path, results: Results) -> list[str]:
    measured = results.measured_on("test")
    if measured is None:
        raise DataError(f"Expected scores on test in {path}, found none.")
    test, interval = measured.evaluation, measured.evaluation.intervals.intervals["macro_f1"]
    scores = (test.majority_baseline.macro_f1, test.scores.balanced_accuracy, test.scores.auroc)
    encoder = results.recipe.get("encoder", results.started_from)
    model = " + ".join(str(name) for name in (encoder, results.recipe.get("temporal")) if name)
    return [
        f"[{model}]({path.relative_to(ROOT).as_posix()})",
        ("drawn/" if measured.data.drawn else "") + measured.data.source,
        str(len(results.label_names)),
        str(test.num_clips),
        str(test.intervals.num_clusters),
        f"**{interval.value:.3f}** ({interval.in_words('no interval')})",
        *(f"{score:.3f}" for score in scores),
    ]


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(renewed(path.read_text(encoding="utf-8")), encoding="utf-8")
    path = ROOT / EXPLAINED_IN
    path.write_text(with_limits(path.read_text(encoding="utf-8")), encoding="utf-8")
    (ROOT / EVIDENCE).write_text(evidence_page(), encoding="utf-8")
    speed = read_speed()
    (ROOT / PERFORMANCE).write_text(render_performance(speed, SPEED_PICTURE), encoding="utf-8")
    save_speed_figure(speed, ROOT / "docs" / SPEED_PICTURE)
    print(results_table(ROOT / "docs/measured"))
