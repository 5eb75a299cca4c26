"""The end of `make demo`: one sentence with numbers per claim, eight answers with the truth, and commands to try next.

    python -m engagement_recognition.studies.demo_verdict runs/demo runs/demo_lstm runs/demo_mean drawn/daisee

Nothing is trained or chosen here: claims are checked with the runs' results, and a claim without support in the numbers
is reported as such.
"""

import os
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..data.readers.sources import read_source
from ..data.schema import BINARY, binary_label
from ..evaluation.comparison import compare_runs
from ..evaluation.results_file import read_results
from ..evaluation.score_records import Interval, SplitEvaluation
from ..explanation.explain_files import explain_file
from ..explanation.heat_map_figure import save_explanation
from ..inference.predictor import Predictor, VideoPrediction
from ..processor.input_errors import DataError, EngagementInputError, RecipeError

_NUM_CLIPS = 8
_CHANCE = 0.5  # AUROC of random scores


class Claim(NamedTuple):
    """A sentence, and whether its numbers support it."""

    is_shown: bool
    sentence: str


class ToldClip(NamedTuple):
    """A test clip with its truth and the model's answer."""

    path: Path
    truth: str
    answer: str  # a label, or why there is none
    score: float | None  # of the most probable label; None where no face was found


def claims(run: Path, with_order: Path, without_order: Path) -> list[Claim]:
    """
    Args:
        run: a run of both stages, whose engagement model was measured with `--face-focus`.
        with_order, without_order: runs on clips whose label depends only on the order of frames: a head that reads
            order, and the mean over time.

    Raises:
        ModelLoadError: a run has no results.
        DataError: a run was not measured on test.
    """
    expression, engagement = _measured(run / "expression"), _measured(run / "engagement")
    lstm, mean = with_order / "engagement", without_order / "engagement"
    read, unread = (_measured(folder).intervals.intervals["auroc"] for folder in (lstm, mean))
    gain = compare_runs(mean, lstm).differences["auroc"]
    return [
        _recognised("Expressions", expression),
        _recognised("Engagement", engagement),
        Claim(
            _is_above(read, _CHANCE) and bool(gain.excludes_zero),
            f"An LSTM learns a label that depends only on the order of frames: AUROC {_in_words(read)}, "
            f"{_signed(gain.value)} over the mean ({gain.in_words('no interval')}).",
        ),
        Claim(
            unread.lower is not None and unread.lower <= _CHANCE,
            f"The mean over frames cannot learn it: AUROC {_in_words(unread)}, chance is {_CHANCE}.",
        ),
        _looks_at_the_face(engagement),
    ]


def _measured(folder: Path) -> SplitEvaluation:
    measured = read_results(folder).measured_on("test")
    if measured is None:
        raise DataError(f"{folder} has no scores on test; run `engagement evaluate` on it.")
    return measured.evaluation


def _recognised(what: str, found: SplitEvaluation) -> Claim:
    score, baseline = found.intervals.intervals["macro_f1"], found.majority_baseline
    people = found.people.num_people if found.people else "unknown"
    return Claim(
        _is_above(score, baseline.macro_f1),
        f"{what} are recognised on {people} people the model has never seen: macro-F1 {_in_words(score)}, compared "
        f'with {baseline.macro_f1:.3f} for always "{baseline.predicts}".'.replace("Engagement are", "Engagement is"),
    )


def _looks_at_the_face(engagement: SplitEvaluation) -> Claim:
    focus = engagement.face_focus
    if focus is None or focus.face.mean is None or focus.face.chance is None:
        return Claim(False, "The model looks at the face: not measured; run `engagement evaluate --face-focus 20`.")
    bounds = "no interval" if focus.face.lower is None else f"{focus.face.lower:.3f} to {focus.face.upper:.3f}"
    size = "x".join(map(str, focus.map_size or ()))
    return Claim(
        focus.face.lower is not None and focus.face.lower > focus.face.chance and not focus.is_coarse,
        f"The model looks at the face: {focus.face.mean:.3f} of the heat lies on it ({bounds}), and the face is "
        f"{focus.face.chance:.3f} of the picture ({focus.num_clips} clips, maps of {size} cells).",
    )


def _is_above(score: Interval, chance: float) -> bool:
    return score.lower is not None and score.lower > chance


def _in_words(score: Interval) -> str:
    return f"{score.value or 0:.3f} ({score.in_words('no interval')})"


def _signed(value: float | None) -> str:
    return "unknown" if value is None else f"{value:+.3f}"


def choose_clips(data: Path, num_clips: int = _NUM_CLIPS) -> list[tuple[Path, str]]:
    """Test clips of different people with their truth, alternating labels; the same in each call.

    Raises:
        DataError: the data cannot be read, or has no test clips in a folder.
    """
    by_person: dict[str, dict[str, Path]] = {}
    for record in read_source(None, data).records:
        if record.split == "test" and record.subject_id and record.affects:
            labels = by_person.setdefault(record.subject_id, {})
            labels.setdefault(binary_label(record.affects), data / record.source_path)
    if not by_person:
        raise DataError(f"{data} has no test clips with levels of engagement; draw it again.")
    chosen = []
    for number, (_, clips) in enumerate(sorted(by_person.items())[:num_clips]):
        wanted = BINARY[number % 2]
        truth = wanted if wanted in clips else next(iter(clips))
        chosen.append((clips[truth], truth))
    return chosen


def ask(predictor: Predictor, clips: Sequence[tuple[Path, str]]) -> list[ToldClip]:
    """The model's answers with the truth; a clip that it refuses is reported and does not stop the rest."""
    told = []
    for path, truth in clips:
        try:
            found = predictor.predict(path)
        except EngagementInputError as error:
            told.append(ToldClip(path, truth, f"refused: {error}", None))
            continue
        if not isinstance(found, VideoPrediction):
            raise DataError(f"{path} is a photo, not a video; draw the data again.")
        score = max(found.scores.values()) if found.scores else None
        told.append(ToldClip(path, truth, found.label or str(found.reason), score))
    return told


def save_heat_maps(predictor: Predictor, clips: Sequence[ToldClip], folder: Path) -> list[Path]:
    """A heat map of the first answered clip of each true label; returns the files.

    Raises:
        DataError: the folder is not writable.
    """
    first: dict[str, Path] = {}
    for clip in clips:
        if clip.score is not None:
            first.setdefault(clip.truth, clip.path)
    return [
        save_explanation(explain_file(predictor, path), folder / f"heat_{truth}.png") for truth, path in first.items()
    ]


def render_verdict(found: Sequence[Claim], clips: Sequence[ToldClip], pictures: Sequence[Path], run: Path) -> str:
    """The last screen of the demo."""
    lines = ["", "Results on drawn people that no model was trained on (brackets: 95 % interval over people):", ""]
    for claim in found:
        sentence = f"{'shown' if claim.is_shown else 'NOT SHOWN'}: {claim.sentence}"
        lines += textwrap.wrap(sentence, 100, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
    shown = sum(claim.is_shown for claim in found)
    right, answered = sum(clip.answer == clip.truth for clip in clips), sum(clip.answer in BINARY for clip in clips)
    lines += ["", f"{shown} of {len(found)} claims are shown. {len(clips)} test clips of different people:", ""]
    rows = [("clip", "truth", "answer", "score", "")]
    for clip in clips:
        score = "" if clip.score is None else f"{clip.score:.3f}"
        rows.append((clip.path.name, clip.truth, clip.answer, score, "right" if clip.answer == clip.truth else ""))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines += ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    lines += [f"  {answered} answered, {right} right; heat maps of two of them:"]
    lines += [*(f"  {picture}" for picture in pictures), "", "Next:", ""]
    commands, folder = next_commands(clips[0].path, run), Path(sys.executable).parent
    place = f"{os.path.relpath(folder)}/" if folder.is_relative_to(Path.cwd()) else ""
    return "\n".join([*lines, *(f"  {place}{command}" for command in commands)])


def next_commands(clip: Path, run: Path) -> list[str]:
    """Three commands to try after the demo; docs/quickstart.md has more."""
    return [
        f"engagement predict {clip} --model {run / 'engagement'} --timeline 2 --plot-dir {run}    # over time",
        f"engagement app {run / 'engagement'} {run / 'expression'}    # a page with your webcam, only on this machine",
        f"engagement train demo --engagement_data DAiSEE/ --output_dir {run.parent / 'real'}    # your own clips",
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the verdict; an error in the input is one line on stderr, with exit code 2."""
    words = sys.argv[1:] if argv is None else argv
    try:
        if len(words) != 4:
            raise RecipeError(f"Expected RUN LSTM_RUN MEAN_RUN DATA, got {len(words)} arguments; see `make demo`.")
        run, with_order, without_order, data = map(Path, words)
        found = claims(run, with_order, without_order)
        predictor = Predictor.from_pretrained(str(run / "engagement"))
        clips = ask(predictor, choose_clips(data))
        pictures = save_heat_maps(predictor, clips, run)
    except EngagementInputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(render_verdict(found, clips, pictures, run))
    return 0


if __name__ == "__main__":
    sys.exit(main())
