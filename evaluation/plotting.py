"""Text in figures: names that the font can draw and that fit, never read as a formula."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_LETTERS = 48


def shown_name(file: str) -> str:
    """A file's name in one line, without its middle if it is long; "?" for characters that the font lacks.

    matplotlib warns of each missing character in every drawing, and cannot draw half a surrogate pair at all.
    """
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties()))
    name = Path(file).name
    name = "".join(letter if letter.isprintable() and font.get_char_index(ord(letter)) else "?" for letter in name)
    half = _MAX_LETTERS // 2
    return name if len(name) <= _MAX_LETTERS else f"{name[:half]}…{name[-half:]}"


def take_literally(figure: "Figure") -> None:
    """Show every text literally; a file or label with two dollar signs in its name is not a formula."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
