"""What a prediction is, and what it must not be used for: the one text, for cards, pages, Spaces and the README."""

WHAT_IT_IS = """\
**What it is.** An estimate of how annotators would rate the *apparent* engagement, or the expression, of a face. It is
often wrong, and it is the more wrong the less you look like the people it was trained on.

**What it is not.** It does not measure attention, learning, effort or emotion, and it recognises nobody."""

# Below a heading, or a line that says as much: "What it must not be used for".
MUST_NOT_BE_USED = """\
- **Learners or employees in the EU**: since 2 February 2025 the AI Act, Article 5(1)(f), prohibits inferring emotions
  of people in education and at the workplace, save for medical or safety reasons. Whether engagement is an emotion is
  disputed; act as if it were. Being open source does not exempt a use, and human oversight does not cure one.
- Grading, discipline, proctoring, hiring, covert use, ranking people, minors, identification.
- Any decision about a person. Abstaining is a valid answer, and opting out must cost nothing.

Intended: research, benchmarking, teaching of methods, adult volunteers' own footage with their consent. This is not
legal advice."""


def limits_for_terminal() -> str:
    """All of it, without Markdown's marks."""
    return f"{WHAT_IT_IS}\n\nWhat it must not be used for:\n{MUST_NOT_BE_USED}\n".replace("*", "")
