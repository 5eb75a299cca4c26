"""Where a model looks, as `results.json` holds it: heat on the face, over clips and people."""

from typing import Annotated

from pydantic import Field

from ..data.json_records import Count, NotNegative, Record, Share

FINE_MAP = 4  # places a side, below which heat cannot tell a face from what is around it


class FocusRegion(Record):
    """Heat in one region of the face."""

    mean: Share | None
    """mean share of a clip's heat; null where no clip shows both heat and a face"""
    chance: Share | None
    """the region's share of the picture's area, which heat without aim would have"""
    ratio: NotNegative | None
    """of the two"""
    lower: float | None
    """95 % interval over people; null where they are unknown, or fewer than five"""
    upper: float | None
    """as `lower`"""


class FocusPeople(Record):
    """How much people differ in heat on the face."""

    suppressed: bool
    """whether people are unknown, or fewer than five"""
    num_people: Count | None
    """null where suppressed"""
    lowest_means: list[float]
    """of up to five persons, who are not named"""


class FocusSanity(Record):
    """Whether the maps could have failed; means over some of the clips."""

    num_clips: Count
    """how many"""
    randomised_rank_correlation: float | None = None
    """with the maps of untrained weights; near 1: the maps do not show the training"""
    deletion_gain: float | None = None
    """by how much more the score moves when the hottest of 8x8 cells are hidden first than in random orders"""
    insertion_gain: float | None = None
    """the same when they are shown first; 0 or below: no better than chance"""


class FaceFocusResults(Record):
    """Where the model looks: Grad-CAM on clips drawn at random."""

    num_clips: Count
    """clips drawn"""
    num_without_face: Count
    """those without a face, which count in nothing else"""
    num_without_heat: Count
    """those without heat, which count in nothing else"""
    num_unreadable: Count
    """those that could not be read, which count in nothing else"""
    label: str
    """the label that is explained: `predicted`"""
    seed: int
    """of the drawing"""
    map_size: Annotated[list[Count], Field(min_length=2, max_length=2)] | None = None
    """rows and columns of the feature map behind the heat; null in older results. Below four it is too coarse to tell
    a face from what is around it"""
    face: FocusRegion
    """the face box"""
    eyes: FocusRegion
    """eyes and brows"""
    mouth: FocusRegion
    """mouth"""
    people: FocusPeople
    """on the face"""
    sanity: FocusSanity
    """whether the maps could have failed"""

    @property
    def is_coarse(self) -> bool:
        """Whether its maps have too few places to tell a face from what is around it; older results do not say."""
        return self.map_size is not None and min(self.map_size) < FINE_MAP
