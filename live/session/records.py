"""What is known of a recorded session: a row a person and window, who came and went, what could not be read."""

from dataclasses import dataclass, field

NOBODY_SEEN = "nobody seen"  # `SessionRow.reason` of a window without a person, beside those of `Answer.reason`


@dataclass(frozen=True)
class SessionRow:
    """One person in one window. Without a label, `reason` says why."""

    source: str
    person: int | None  # 1, 2, ... in order of appearance in this video; None: nobody was seen, or nothing can be read
    start_sec: float
    end_sec: float
    label: str | None
    reason: str | None
    certainty: float | None = None
    scores: dict[str, float] | None = None  # calibrated where validation told how, by label name
    face_coverage: float | None = None  # share of the frames looked at that show this person's face
    signals: dict[str, float | None] = field(default_factory=dict)  # of `data.face_signals.SIGNALS`


@dataclass(frozen=True)
class Visit:
    """From when to when somebody was in the picture without a longer break."""

    start_sec: float
    end_sec: float


@dataclass(frozen=True)
class SessionPerson:
    """Somebody in a video; a number, and never a name."""

    number: int
    visits: tuple[Visit, ...]
    # Who was gone by then and looked alike (hair, clothes, background), but sat elsewhere: nobody knows, so the two
    # keep numbers of their own.
    may_be: int | None = None


@dataclass(frozen=True)
class SessionVideo:
    """One recording, as far as it could be read."""

    source: str
    duration_sec: float
    rows: tuple[SessionRow, ...]  # by window, then by person
    people: tuple[SessionPerson, ...]
    num_passers_by: int = 0  # faces seen too shortly to be counted as a person
    notes: tuple[str, ...] = ()  # sentences without a stop: where it breaks off, what was not read
