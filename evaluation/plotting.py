"""Text in figures: as wide as it is drawn, shortened where it must be, and never read as a formula."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def shown_name(file: str) -> str:
    """A file's name in letters that figures have: one line, and "?" for every other letter."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties()))
    name = Path(file).name
    return "".join(letter if letter.isprintable() and font.get_char_index(ord(letter)) else "?" for letter in name)


def shorten(text: str, width_inches: float, size_pt: float) -> str:
    """The text, without its middle where it would be wider than this: a file's name says most at both of its ends."""
    shown, kept = text, len(text)
    while kept > 2 and text_inches(shown, size_pt) > width_inches:
        kept -= 1
        shown = f"{text[: (kept + 1) // 2]}…{text[-(kept // 2) :]}"
    return shown


def text_inches(text: str, size_pt: float) -> float:
    """How wide the longest line of a text is drawn."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    font, measure = FontProperties(size=size_pt), TextToPath().get_text_width_height_descent
    return max(measure(line, font, ismath=False)[0] for line in text.split("\n")) / 72  # points are 1/72 inch


def take_literally(figure: "Figure") -> None:
    """Show every text as it is written; a file or label with two dollar signs in its name is no formula."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
