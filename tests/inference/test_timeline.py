"""A timeline as a line in the terminal, as a PNG and as CSV: what is uncertain or without a face says so."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from engagement_recognition.inference.predictions import Span, VideoPrediction
from engagement_recognition.inference.timeline import clock, draw_in_terminal, save_plot, timeline_csv

BAND = (0.4, 0.6)
NOTE = "The model learned from drawn people."


def prediction_of(engaged: Sequence[float | None], step_sec: float = 5) -> VideoPrediction:
    """Two classes; None: no face."""
    spans = []
    for k, score in enumerate(engaged):
        span = (k * step_sec, (k + 1) * step_sec)
        if score is None:
            spans.append(Span(*span, None, None, 0.0, "no face long enough"))
        elif BAND[0] <= score <= BAND[1]:
            spans.append(Span(*span, None, scores_of(score), 1.0, "uncertain", 0.1))
        else:
            spans.append(Span(*span, "engaged" if score > 0.5 else "bored", scores_of(score), 1.0, None, 0.9))
    return VideoPrediction("film.mp4", "engaged", scores_of(0.7), 1.0, 0, spans)


def scores_of(engaged: float) -> dict[str, float]:
    return {"bored": 1 - engaged, "engaged": engaged}


# The terminal


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "00:00"), (59.6, "01:00"), (754.4, "12:34"), (3599.7, "1:00:00"), (36061, "10:01:01")]
)
def test_time_is_shown_as_a_clock_has_it(seconds: float, shown: str):
    assert clock(seconds) == shown


def test_two_classes_are_one_line_with_what_is_uncertain_marked():
    drawn = draw_in_terminal(prediction_of([0.0, 0.5, 1.0, None, 0.7, 0.45]), BAND, width_chars=80)
    assert drawn.splitlines() == [
        "engaged | ▄█·▆▄|",
        "          ?   ?",
        "         00:00 00:30",
        "? uncertain (engaged 0.40 to 0.60); · no face",
    ]


def test_more_classes_are_a_line_each():
    scores = {"bored": 0.0, "engaged": 1.0, "asleep": 0.5}
    spans = [Span(0, 1800, "engaged", scores, 1.0), Span(1800, 3600, None, None, 0.0)]
    drawn = draw_in_terminal(VideoPrediction("film.mp4", "engaged", scores, 1.0, 0, spans), width_chars=80)
    assert drawn.splitlines() == [
        "  bored | ·|",
        "engaged |█·|",
        " asleep |▄·|",
        "         0:00:00 1:00:00",
        "· no face",
    ]


def test_a_long_film_fits_the_terminal_by_means(monkeypatch: pytest.MonkeyPatch):
    # An hour by ten seconds: a quarter high, a quarter uncertain, a quarter without a face but for one span, one low.
    engaged = [*[0.8, 1.0] * 45, *[0.5] * 90, *[None] * 89, 0.95, *[0.0] * 90]
    monkeypatch.setenv("COLUMNS", "50")
    line, marks, times, legend = draw_in_terminal(prediction_of(engaged, 10), BAND).splitlines()
    assert line == f"engaged |{'█' * 10}{'▄' * 10}{'·' * 9}█{' ' * 10}|" and len(line) == 50
    assert marks == " " * 19 + "?" * 10
    assert times == f"         0:00:00{'1:00:00':>33}"
    assert "mean over about 01:30" in legend


def test_a_label_that_coverage_forbids_is_no_face():
    span = Span(0, 5, None, scores_of(0.9), 0.2, "no face long enough")
    drawn = draw_in_terminal(VideoPrediction("film.mp4", "engaged", scores_of(0.9), 0.2, 0, [span]), width_chars=80)
    assert drawn.splitlines()[0] == "engaged |·|"


# The picture


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Figure]]:
    """Figures that were saved."""
    saved: list[Figure] = []
    save = Figure.savefig

    def savefig(figure: Figure, *args: object, **options: object) -> None:
        saved.append(figure)
        save(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return saved


def test_the_plot_is_one_line_over_minutes_with_the_band_and_a_note(tmp_path: Path, figures: list[Figure]):
    engaged = [0.0, 0.5, None, None, 0.9, *[0.7] * 30]
    save_plot(prediction_of(engaged), tmp_path / "plot.png", BAND, NOTE)
    assert (tmp_path / "plot.png").stat().st_size > 5000
    (axes,) = figures[0].axes
    line, hollow = axes.lines
    assert line.get_label() == "engaged" and [float(y) for y in line.get_ydata()[:2]] == [0.0, 0.5]
    assert list(hollow.get_xdata()) == [7.5] and list(hollow.get_ydata()) == [0.5]
    band, grey = axes.patches
    assert (band.get_y(), band.get_height()) == pytest.approx((0.4, 0.2))
    assert (grey.get_x(), grey.get_width()) == (10, 10)
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "00:00",
        "00:30",
        "01:00",
        "01:30",
        "02:00",
        "02:30",
    ]
    assert NOTE in [text.get_text() for text in axes.texts]


@pytest.mark.parametrize(
    ("num_spans", "step_sec", "last"), [(1, 0.4, "00:00"), (1080, 10, "3:00:00"), (9000, 10, "24:00:00")]
)
def test_any_length_has_ticks_that_can_be_read(tmp_path: Path, figures: list[Figure], num_spans, step_sec, last):
    save_plot(prediction_of([0.7] * num_spans, step_sec), tmp_path / "plot.png")
    labels = [label.get_text() for label in figures[0].axes[0].get_xticklabels()]
    assert len(labels) <= 10 and labels[-1] == last


# The table


def test_the_table_has_a_row_per_span_and_a_reason_where_there_is_no_label():
    header, *rows = csv.reader(io.StringIO(timeline_csv(prediction_of([0.25, 0.5, None]))))
    assert header == ["start_sec", "end_sec", "label", "reason", "face_coverage", "certainty", "bored", "engaged"]
    assert rows == [
        ["0", "5", "bored", "", "1.0", "0.9", "0.75", "0.25"],
        ["5", "10", "", "uncertain", "1.0", "0.1", "0.5", "0.5"],
        ["10", "15", "", "no face long enough", "0.0", "", "", ""],
    ]
