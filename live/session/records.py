"""Records of a session: one row per person and window, people's visits, what could not be read."""

from dataclasses import dataclass, field

NOBODY_SEEN = "nobody seen"  # `SessionRow.reason` of a window without a person; others are `Answer.reason`


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
    scores: dict[str, float] | None = None  # by label name; calibrated if validation data allowed it
    face_coverage: float | None = None  # share of the sampled frames that show this person's face
    signals: dict[str, float | None] = field(default_factory=dict)  # of `data.face_signals.SIGNALS`


@dataclass(frozen=True)
class Visit:
    """When a person was in the picture, without a longer break."""

    start_sec: float
    end_sec: float


@dataclass(frozen=True)
class SessionPerson:
    """A person in a video: a number, never a name."""

    number: int
    visits: tuple[Visit, ...]
    # An earlier person with a similar look (hair, clothes, background) in another place: perhaps the same, so both keep
    # their own numbers.
    may_be: int | None = None


@dataclass(frozen=True)
class SessionVideo:
    """One recording, as far as it could be read."""

    source: str
    duration_sec: float
    rows: tuple[SessionRow, ...]  # by window, then by person
    people: tuple[SessionPerson, ...]
    num_passers_by: int = 0  # faces seen too briefly to count as people
    notes: tuple[str, ...] = ()  # sentences without a full stop: where it breaks off, what was not read
