"""The last screen of the demo: claims as the results bear them out, truths beside answers, pictures, commands."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import TrainedStages
from made_up_results import NAMES, OWN, face_focus, predictions, results

from engagement_recognition.evaluation.focus_records import FaceFocusResults, FocusRegion
from engagement_recognition.evaluation.results_file import write_results
from engagement_recognition.evaluation.results_schema import Measurement
from engagement_recognition.evaluation.split_evaluation import SplitPredictions, evaluate_split, write_predictions
from engagement_recognition.inference.predictor import Predictor
from engagement_recognition.studies.demo_verdict import ToldClip, ask, choose_clips, claims, main, render_verdict

CLAIMS = ("Expressions are", "Engagement is", "An LSTM learns", "The mean over", "The model looks")


def certain(found: SplitPredictions) -> SplitPredictions:
    """The same windows, each read rightly."""
    return replace(found, logits=(6 * np.eye(2)[found.label_ids]).astype(np.float32))


def blind(found: SplitPredictions) -> SplitPredictions:
    """The same windows; every second person is always engaged, the others never."""
    engaged = [float(int(subject) % 2 * 2 - 1) for subject in found.subject_ids]
    return replace(found, logits=np.stack([np.zeros(len(engaged)), engaged], axis=1).astype(np.float32))


def constant(found: SplitPredictions) -> SplitPredictions:
    """The same windows, all of them engaged."""
    return replace(found, logits=np.tile(np.float32([0, 1]), (len(found.keys), 1)))


def focus(mean: float, chance: float, map_size: int) -> FaceFocusResults:
    face = FocusRegion(mean=mean, chance=chance, ratio=mean / chance, lower=mean - 0.05, upper=mean + 0.05)
    return face_focus(face, map_size=[map_size, map_size])


def write_run(folder: Path, found: SplitPredictions, looks: FaceFocusResults | None = None) -> None:
    """Results and predictions of a run, as training writes them."""
    folder.mkdir(parents=True)
    evaluation, _ = evaluate_split(found, None, None, [0] * 5 + [1] * 8, NAMES)
    known = results()
    measured = Measurement(
        split="test", data=known.measurements[0].data, evaluation=evaluation.model_copy(update={"face_focus": looks})
    )
    counts = {"disengaged": 5, "engaged": 8}
    write_results(folder, known.model_copy(update={"measurements": [measured], "train_label_counts": counts}))
    write_predictions(folder, [found], NAMES, OWN)


def write_runs(root: Path, reads: bool, looks: FaceFocusResults) -> tuple[Path, Path, Path]:
    found = predictions(num_people=8)
    good, bad = certain(found), blind(found)
    write_run(root / "demo/expression", good if reads else constant(found))
    write_run(root / "demo/engagement", good if reads else constant(found), looks)
    write_run(root / "lstm/engagement", good if reads else bad)
    write_run(root / "mean/engagement", bad if reads else good)
    return root / "demo", root / "lstm", root / "mean"


def test_claims_that_hold_are_shown_with_their_numbers(tmp_path: Path):
    found = claims(*write_runs(tmp_path, True, focus(0.8, 0.5, 6)))
    assert [claim.is_shown for claim in found] == [True] * 5
    assert all(claim.sentence.startswith(words) for claim, words in zip(found, CLAIMS, strict=True))
    assert "on 8 people" in found[0].sentence and "macro-F1 1.000" in found[0].sentence
    assert "AUROC 1.000" in found[2].sentence and "+0.500 over the mean" in found[2].sentence
    assert "0.800 of the heat" in found[4].sentence and "6x6 cells" in found[4].sentence


@pytest.mark.parametrize("looks", [focus(0.52, 0.5, 6), focus(0.8, 0.5, 2)], ids=["no better than chance", "coarse"])
def test_claims_that_do_not_hold_are_told_as_such(looks: FaceFocusResults, tmp_path: Path):
    found = claims(*write_runs(tmp_path, False, looks))
    assert [claim.is_shown for claim in found] == [False] * 5
    screen = render_verdict(found, [ToldClip(Path("1.avi"), "engaged", "uncertain", 0.5)], [], Path("runs/demo"))
    assert screen.count("NOT SHOWN: ") == 5 and "0 of 5 claims are shown" in screen and "0 answered, 0 right" in screen


def test_the_screen_sets_truths_beside_answers_and_names_three_commands():
    told = [
        ToldClip(Path("a/11.avi"), "engaged", "engaged", 0.91),
        ToldClip(Path("b/22.avi"), "disengaged", "uncertain", 0.52),
        ToldClip(Path("c/33.avi"), "disengaged", "refused: no face", None),
    ]
    lines = render_verdict([], told, [Path("heat.png")], Path("runs/demo")).splitlines()
    (row,) = [line.split() for line in lines if "11.avi" in line and "predict" not in line]
    assert row == ["11.avi", "engaged", "engaged", "0.910", "right"]
    assert any(line.split() == ["22.avi", "disengaged", "uncertain", "0.520"] for line in lines)
    assert any("1 answered, 1 right" in line for line in lines) and "  heat.png" in lines
    assert len(lines[lines.index("Next:") + 2 :]) == 3 and all("engagement " in line for line in lines[-3:])


def test_clips_are_of_different_people_and_both_truths(drawn_daisee: Path, trained: TrainedStages):
    clips = choose_clips(drawn_daisee)
    people = [path.parts[-3] for path, _ in clips]
    assert len(set(people)) == len(people) > 0 and all(path.is_file() for path, _ in clips)
    assert clips == choose_clips(drawn_daisee)
    told = ask(Predictor.from_pretrained(str(trained.engagement)), [*clips, (drawn_daisee / "none.avi", "engaged")])
    assert [clip.truth for clip in told[:-1]] == [truth for _, truth in clips]
    assert all(clip.answer in (*NAMES, "uncertain") or clip.answer.startswith("refused") for clip in told)
    assert told[-1].answer.startswith("refused: ") and told[-1].score is None


@pytest.mark.parametrize("words", [[], ["runs/none", "runs/none", "runs/none", "drawn/none"]])
def test_what_is_missing_is_one_line(words: list[str], capsys: pytest.CaptureFixture):
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("error: ")
