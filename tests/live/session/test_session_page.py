"""The page of a recorded session: what it says and draws, that it loads nothing, and that it ranks nobody."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser
from made_up_sessions import SEVEN, TWO, person_of, row_of, rows_of, video_of

from engagement_recognition.answer_rule import AnswerRule
from engagement_recognition.hub.use_limits import limits_for_terminal
from engagement_recognition.inference.predictions import Refusal
from engagement_recognition.live.session.page import render_page
from engagement_recognition.live.session.person_plot import plot_person, score_px
from engagement_recognition.live.session.records import SessionRow, SessionVideo

NOBODY, UNREADABLE = "nobody seen", "frames that cannot be read"
WITHOUT_END = {"meta", "path", "rect"}  # as the template writes them


class Read(HTMLParser):
    """The page's tags with what they say; opened and closed tags must match."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.pieces: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in WITHOUT_END:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in WITHOUT_END:
            assert self._open.pop() == tag
        if tag in ("td", "th", "span"):
            self.pieces.append(" ")

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.pieces.append(data)

    @property
    def text(self) -> str:
        """All that is to be read, with single spaces."""
        return " ".join("".join(self.pieces).split())

    def with_class(self, name: str) -> list[dict[str, str | None]]:
        """What tags of this class say."""
        return [said for _, said in self.tags if name == said.get("class")]

    def in_words(self) -> list[str]:
        """Of the figures."""
        return [str(said["aria-label"]) for tag, said in self.tags if tag == "svg" and said.get("role") == "img"]


def read(*videos: SessionVideo, refused: tuple[Refusal, ...] = (), rule: AnswerRule = TWO, **more: object) -> Read:
    return Read(render_page(videos, refused, rule, **more))


def film_of(*heights: float | None, rule: AnswerRule = TWO, duration_sec: float | None = None) -> SessionVideo:
    """One person, who is seen throughout."""
    end_sec = duration_sec or 10.0 * len(heights)
    return SessionVideo("film.mp4", end_sec, rows_of(rule, heights), (person_of(1, (0, end_sec)),))


def steps_of(path: str) -> list[tuple[float, float, float]]:
    """What a path of steps draws from left to right: from, to, height."""
    drawn, at, height = [], 0.0, 0.0
    for command, numbers in re.findall(r"([MHVZ])([\d. ]*)", path):
        if command == "M":
            at, height = map(float, numbers.split())
        elif command == "V":
            height = float(numbers)
        elif command == "H":
            drawn.append((at, float(numbers), height))
            at = float(numbers)
    return drawn


# What it says


def test_limits_come_first_and_whole_then_the_models_warnings_and_what_it_names():
    warnings = ["this model learned from drawn people", "this model is uncalibrated"]
    text = read(film_of(0.9), warnings=warnings, names="facial expression, not engagement or feeling").text
    for line in limits_for_terminal().replace("- ", "").split("\n\n"):
        for sentence in line.removeprefix("What it must not be used for:").split(". "):
            assert " ".join(sentence.split()).rstrip(".") in text
    places = [
        text.index(word) for word in ("Any decision about a person", *warnings, "What the model predicts: facial")
    ]
    assert places == sorted(places)
    assert "Take care: this model is uncalibrated." in text and "trained on drawn people" in text
    assert "*" not in text


def test_a_recording_says_how_long_it_is_who_was_counted_and_what_went_wrong():
    video = replace(video_of(TWO, 3, 363), num_passers_by=2, notes=("It breaks off at 1:00:30",))
    text = read(video).text
    assert "1:00:30 long; 3 people" in text and "2 passers-by" in text and "It breaks off at 1:00:30." in text
    assert "Seen 0:00:00 to 1:00:30." in text


def test_visits_and_who_somebody_may_be_are_told_in_words():
    people = (person_of(1, (0, 730), (872, 900)), person_of(2, *((k * 10, k * 10 + 5) for k in range(40))))
    people += (person_of(3, (800, 900), may_be=2),)
    text = read(SessionVideo("film.mp4", 900, rows_of(TWO, [0.9]), people)).text
    assert "Seen 00:00 to 12:10" in text and "again 14:32 to 15:00." in text
    assert "again 00:10 to 00:15" in text and "28 more times, the last 06:30 to 06:35." in text
    assert "May be the earlier person 2" in text
    assert text.count("faces were not compared") == 1


def test_people_stand_by_number_whatever_their_scores_and_nobody_is_summed_up():
    video = video_of(TWO, 3, 20, height_at=lambda person, _: {1: 0.1, 2: 0.95, 3: 0.7}[person])
    page = read(replace(video, people=video.people[::-1]))
    assert re.findall(r"Person (\d)", page.text) == ["1", "2", "3"]
    for words in ("average", r"\bmean\b", "attenti(?!on, learning)", r"\brank(?!ing people)", "score of person"):
        assert not re.search(words, page.text, re.I), words


def test_windows_are_counted_by_what_was_answered_and_why_there_is_no_answer():
    heights = [0.95, 0.9, 0.05, 0.5, None]
    rows = [*rows_of(TWO, heights), row_of(TWO, 1, 5, None, reason="face too small")]
    rows += [row_of(TWO, 1, 6, None, reason=UNREADABLE), *rows_of(TWO, [0.95], person=2)]
    rows += [SessionRow("film.mp4", None, k * 10.0, k * 10.0 + 10, None, NOBODY) for k in (7, 8)]
    rows += [SessionRow("film.mp4", None, 90.0, 100.0, None, UNREADABLE)]
    page = read(SessionVideo("film.mp4", 100, tuple(rows), (person_of(1, (0, 70)), person_of(2, (0, 10)))))
    told = page.text
    for cells in (
        "once per person in it 8", "bored 1 12.5%", "engaged 3 37.5%", "uncertain 1 12.5%",
        "no face long enough 1 12.5%", "face too small 1 12.5%", "frames that cannot be read 1 12.5%",
        "Windows of the recordings 10", "somebody seen 7 70.0%", "nobody seen 2 20.0%",
        "frames that cannot be read 1 10.0%",
    ):  # fmt: skip
        assert cells in told.replace("\n", " "), cells
    assert "no conclusion about any person" in told and "not independent" in told
    assert "0.0 to 0.1 1 20.0%" in told and "0.5 to 0.6 1 20.0%" in told and "0.9 to 1.0 3 60.0%" in told
    (histogram,) = [words for words in page.in_words() if "Histogram" in words]
    assert "1, 0, 0, 0, 0, 1, 0, 0, 0, 3." in histogram
    assert "nobody seen in 2" in told and "nothing readable in 1" in told


def test_shares_that_are_not_nothing_are_not_rounded_to_it():
    text = read(video_of(TWO, 1, 3000, height_at=lambda _, place: 0.1 if place else 0.9)).text
    assert "engaged 1 < 0.1%" in text and "bored 2,999 > 99.9%" in text


# What it draws


def test_the_line_breaks_where_there_is_no_score_and_the_ground_is_grey_there():
    page = read(film_of(0.95, 0.75, None, None, 0.25, 0.0, duration_sec=80))
    (line,) = [said["d"] for said in page.with_class("score") if said["d"] != "M0 .8H1V.2H2"]
    assert steps_of(line) == [(0, 10, 14.4), (10, 20, 40), (40, 50, 104), (50, 60, 136)]
    grey = page.with_class("none")[-1]["d"]
    assert [step[:2] for step in steps_of(grey)][::2] == [(20, 40), (60, 80)]
    assert "scores from 00:00 to 00:20, and again 00:40" in page.in_words()[-1]
    assert "2 windows without an answer" in page.in_words()[-1]


def test_a_window_alone_is_a_dot_and_windows_that_are_not_there_are_a_gap_too():
    rows = (row_of(TWO, 1, 0, 0.9), row_of(TWO, 1, 3, 0.1))  # nothing is known of the two between
    page = read(SessionVideo("film.mp4", 40, rows, (person_of(1, (0, 10), (30, 40)),)))
    (dots,) = page.with_class("score dot")
    assert [step[:2] for step in steps_of(dots["d"])] == [(0, 10), (30, 40)]
    assert len(page.with_class("score")) == 1  # the key's: there is no line


@pytest.mark.parametrize("rule", [TWO, AnswerRule(("bored", "engaged"), offsets=(0.8, 0.0), abstain_below=0.7)])
def test_the_band_lies_where_answers_are_uncertain(rule: AnswerRule):
    page = read(film_of(0.9, 0.8, rule=rule), rule=rule)
    low, high = rule.uncertain_band()
    _, in_histogram, in_figure = page.with_class("band")  # the first is that of the key
    assert float(in_figure["y"]) == pytest.approx(8 + (1 - high) * 128, abs=0.01)
    assert float(in_figure["height"]) == pytest.approx((high - low) * 128, abs=0.01) and in_figure["width"] == "20.0"
    assert float(in_histogram["x"]) == pytest.approx(10 * low, abs=0.001)
    assert float(in_histogram["width"]) == pytest.approx(10 * (high - low), abs=0.001)
    assert f"Uncertain: a score from {low:.2f} to {high:.2f}" in page.text


def test_how_much_of_a_face_was_seen_is_a_strip_below_on_the_same_axis():
    rows = (row_of(TWO, 1, 0, 0.9, 1.0), row_of(TWO, 1, 1, None, 0.25), row_of(TWO, 1, 2, None, 0.0))
    page = read(SessionVideo("film.mp4", 40, rows, (person_of(1, (0, 30)),)))
    strip = page.with_class("seen")[-1]["d"]
    assert steps_of(strip) == [(0, 10, 144), (10, 20, 154.5)] and strip.startswith("M0 158V")


def test_more_labels_are_a_line_each_filled_where_they_are_the_answer_and_a_strip_where_none_is():
    rows = list(rows_of(SEVEN, [0.1, 0.1, 0.3, 0.95, None]))
    rows[2] = replace(rows[2], label=None, reason="uncertain")
    page = read(SessionVideo("film.mp4", 50, tuple(rows), (person_of(1, (0, 50)),)), rule=SEVEN)
    # The first of each is that of the key.
    lines, areas, strips = ([said["d"] for said in page.with_class(name)[1:]] for name in ("score", "answer", "unsure"))
    assert len(lines) == 7 and all(steps_of(line)[-1][1] == 40 for line in lines)
    answered = sorted(step[:2] for area in areas for step in steps_of(area))
    assert [row.label is None for row in rows] == [False, False, True, False, True]
    assert answered == [(0, 20), (30, 40)]
    assert [steps_of(strip)[0][:2] for strip in strips] == [(20, 30)]
    assert not page.with_class("band") and "Histogram" not in "".join(page.in_words())
    assert all(page.text.count(name) >= 3 for name in SEVEN.label_names)


def test_a_score_lies_as_far_down_as_it_is_from_one():
    lane = plot_person(rows_of(TWO, [0.5]), TWO, 10).scores[0]
    assert [score_px(score, lane) for score in (1, 0.5, 0)] == [8, 72, 136]


# What it must not do


def everything() -> Read:
    """All parts of a page at once."""
    video = replace(video_of(SEVEN, 3, 30), num_passers_by=1, notes=("It breaks off",))
    refused = (Refusal("broken.mp4", "no video stream"),)
    return read(video, film_of(None, rule=SEVEN), refused=refused, rule=SEVEN, warnings=["careful"], names="expression")


def test_nothing_is_loaded_and_no_script_runs():
    pages = (everything(), read(film_of(0.9, 0.2)))
    for page in pages:
        names = {tag for tag, _ in page.tags}
        assert not names & {"script", "link", "img", "image", "iframe", "object", "embed", "base", "form", "use"}
        for tag, said in page.tags:
            assert not any(name.startswith("on") or name in ("src", "srcset", "xlink:href") for name in said), tag
            assert str(said.get("href", "#")).startswith("#") and "url(" not in str(said.get("style"))
            if tag == "svg":
                assert said.get("aria-hidden") == "true" or (said["role"] == "img" and said["aria-label"])
    written = render_page([film_of(0.9)], [], TWO)
    assert not re.search(r"https?:|//[a-z]|url\(|@import|javascript:", written)


@pytest.mark.parametrize(
    "name", ["<script>alert(1)<script>.mp4", "a\"b' onload=x.mp4", b"caf\xe9.mp4".decode("utf-8", "surrogateescape")]
)
def test_names_are_text_whatever_they_hold(name: str, tmp_path: Path):
    note, error = f"in {name} it breaks off", f"nothing in {name}"
    video = replace(film_of(0.9), source=name, notes=(note,))
    page = render_page([video], [Refusal(f"2{name}", error)], TWO, [name], name)
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    seen = Read(page)
    assert all(tag != "script" and "onload" not in said for tag, said in seen.tags)
    shown = name.encode("utf-8", "backslashreplace").decode()
    assert seen.text.count(shown) == 7  # list and heading, note, refusal twice, warning, what the model names


def test_files_of_one_name_are_told_apart():
    first, second = (replace(film_of(0.9), source=f"/data/{day}/camera.mp4") for day in ("monday", "tuesday"))
    text = read(first, second).text
    assert "monday/camera.mp4" in text and "tuesday/camera.mp4" in text and "/data" not in text


@pytest.mark.parametrize(
    ("rule", "num_videos", "num_people", "most_mb"),
    [(SEVEN, 1, 8, 1), (TWO, 40, 5, 3), pytest.param(SEVEN, 40, 5, 15, marks=pytest.mark.slow)],
)
def test_hours_make_a_page_that_can_be_sent(rule: AnswerRule, num_videos: int, num_people: int, most_mb: float):
    videos = [video_of(rule, num_people, 360, f"film{place}.mp4") for place in range(num_videos)]
    assert len(render_page(videos, [], rule).encode()) < most_mb * 1e6


# Little or nothing


def test_nobody_was_seen():
    rows = tuple(SessionRow("film.mp4", None, k * 10.0, k * 10.0 + 10, None, NOBODY) for k in range(3))
    text = read(SessionVideo("film.mp4", 30, rows, (), num_passers_by=1)).text
    assert "0 people counted, and 1 passer-by" in text and "Nobody was seen in this recording." in text
    assert "nobody seen 3 100.0%" in text and "bored 0 –" in text


def test_all_were_refused():
    page = read(refused=(Refusal("a.mp4", "No video stream in a.mp4"), Refusal("b.mp4", "It is empty")))
    assert "No recorded session could be read" in page.text and "a.mp4: No video stream in a.mp4" in page.text
    assert "b.mp4: It is empty" in page.text and "All recordings together" not in page.text
    assert "What it must not be used for" in page.text


def test_one_window_only():
    video = SessionVideo("film.mp4", 8.4, (replace(row_of(TWO, 1, 0, 0.9), end_sec=8.4),), (person_of(1, (0, 8.4)),))
    page = read(video)
    assert "1 person counted; 1 window." in page.text and "engaged 1 100.0%" in page.text
    assert steps_of(page.with_class("score dot")[0]["d"]) == [(0, 8.4, 20.8)]


def test_somebody_with_no_answered_window_and_a_file_of_no_length():
    page = read(film_of(None, None), SessionVideo("empty.mp4", 0.0, (), (person_of(1),)))
    words = page.in_words()
    assert len(words) == 2 and all("there is no score in any window" in said for said in words)
    assert not page.with_class("score dot") and "Histogram" not in "".join(words) and "No time known." in page.text


# In a browser


@pytest.mark.browser
def test_a_phone_needs_no_sideways_scrolling_and_paper_is_white(tmp_path: Path):
    if CHROMIUM is None:
        pytest.skip("no Chromium")
    long = replace(film_of(0.9, None, 0.2, duration_sec=3700), source=f"{'a_name_without_a_break_' * 8}.mp4")
    (tmp_path / "page.html").write_text(render_page([long], [], TWO, ["careful"]), encoding="utf-8")
    with Browser(tmp_path / "profile", tmp_path / "no_camera") as browser:
        dark = [{"name": "prefers-color-scheme", "value": "dark"}]
        grounds = []
        for media in ("screen", "print"):
            browser.send("Emulation.setEmulatedMedia", media=media, features=dark)
            browser.open((tmp_path / "page.html").as_uri(), 390)
            browser.wait_for("document.readyState === 'complete' && !!document.querySelector('figure')")
            grounds.append(browser.ask("getComputedStyle(document.body).backgroundColor"))
            assert browser.ask("document.documentElement.scrollWidth") == 390
            beyond = (
                "[...document.querySelectorAll('main *')].filter((e) => e.getBoundingClientRect().right > 391).length"
            )
            assert browser.ask(beyond) == 0
        assert grounds == ["rgb(22, 27, 30)", "rgb(255, 255, 255)"]
        assert all(address.startswith("file:") for address in browser.requests)
