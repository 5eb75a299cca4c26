"""Where a model looks, as recorded in `results.json`: heat on the face, over clips and people."""

from typing import Annotated

from pydantic import Field

from ..data.json_records import Count, NotNegative, Record, Share

FINE_MAP = 4  # cells per side, below which heat cannot distinguish a face from its surroundings


class FocusRegion(Record):
    """Heat in one region of the face."""

    mean: Share | None
    """mean share of a clip's heat; null where no clip shows both heat and a face"""
    chance: Share | None
    """the region's share of the image's area, which evenly spread heat would have"""
    ratio: NotNegative | None
    """`mean` / `chance`"""
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
    """of up to five people, without names"""


class FocusSanity(Record):
    """Sanity checks of the maps; means over some of the clips."""

    num_clips: Count
    """number of these clips"""
    randomised_rank_correlation: float | None = None
    """with the maps of untrained weights; near 1: the maps do not depend on the training"""
    deletion_gain: float | None = None
    """additional change of the score when the hottest of 8x8 cells are hidden first, compared with random orders"""
    insertion_gain: float | None = None
    """the same when they are shown first; 0 or below: no better than chance"""


class FaceFocusResults(Record):
    """Where the model looks: Grad-CAM on randomly chosen clips."""

    num_clips: Count
    """clips chosen"""
    num_without_face: Count
    """those without a face, which are excluded from the rest"""
    num_without_heat: Count
    """those without heat, which are excluded from the rest"""
    num_unreadable: Count
    """those that could not be read, which are excluded from the rest"""
    label: str
    """the label that is explained: `predicted`"""
    seed: int
    """of the random choice"""
    map_size: Annotated[list[Count], Field(min_length=2, max_length=2)] | None = None
    """rows and columns of the feature map from which the heat is computed; null in older results. Below four it is too
    coarse to distinguish a face from its surroundings"""
    face: FocusRegion
    """the face box"""
    eyes: FocusRegion
    """eyes and brows"""
    mouth: FocusRegion
    """mouth"""
    people: FocusPeople
    """differences between people in heat on the face"""
    sanity: FocusSanity
    """sanity checks of the maps"""

    @property
    def is_coarse(self) -> bool:
        """Whether its maps have too few cells to distinguish a face from its surroundings; unknown in older results."""
        return self.map_size is not None and min(self.map_size) < FINE_MAP
