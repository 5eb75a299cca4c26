"""What a prediction is, and what it must not be used for: one text for cards, pages, Spaces and the README."""

import re
from html import escape

WHAT_IT_IS = """\
**What it is.** An estimate of how annotators would rate the *apparent* engagement, or the expression, of a face. It is
often wrong, and probably more often for people unlike those it was trained on.

**What it is not.** It does not measure attention, learning, effort or emotion, and it recognises nobody."""

# Follows a heading or line "What it must not be used for".
MUST_NOT_BE_USED = """\
- **Learners or employees in the EU**: since 2 February 2025 the AI Act, Article 5(1)(f), prohibits inferring emotions
  of people in education and at the workplace, except for medical or safety reasons. Whether engagement is an emotion
  is disputed; act as if it were. Being open source does not exempt a use, and human oversight does not make a
  prohibited use lawful.
- **Anywhere**: grading, discipline, proctoring, hiring, covert use, ranking people, identifying people, or any use on
  minors.
- Any decision about a person. Abstaining is a valid answer, and opting out must cost nothing.

Intended: research, benchmarking, teaching about these methods, and adult volunteers' own footage with their consent.
This is not legal advice."""

EXPLAINED_IN = "docs/who_must_not_use_it.md"  # of this repository, whose address the package does not know
LIMITS_AND_WHY = f"""\
{MUST_NOT_BE_USED}

Who must not use it, and why: {EXPLAINED_IN} in the repository engagement-recognition."""


def limits_for_terminal() -> str:
    """The whole text, without Markdown."""
    return f"{WHAT_IT_IS}\n\nWhat it must not be used for:\n{LIMITS_AND_WHY}\n".replace("*", "")


def limits_as_html() -> str:
    """The whole text as HTML paragraphs and a list, for pages that do not render Markdown."""
    text = f"{WHAT_IT_IS}\n\n**What it must not be used for.**\n\n{LIMITS_AND_WHY}"
    html = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", escape(text, quote=False), flags=re.DOTALL)
    html = re.sub(r"\*(.+?)\*", r"<em>\1</em>", html, flags=re.DOTALL)
    return "\n".join(_block_as_html(block) for block in html.split("\n\n"))


def _block_as_html(block: str) -> str:
    if not block.startswith("- "):
        return f"<p>{block}</p>"
    items = block.removeprefix("- ").split("\n- ")
    return "\n".join(["<ul>", *(f"<li>{item}</li>" for item in items), "</ul>"])
