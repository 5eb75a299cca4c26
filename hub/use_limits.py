"""What a prediction is, and what it must not be used for: the one text, for cards, pages and Spaces."""

WHAT_IT_IS = """\
**What it is.** An estimate of how annotators would rate the *apparent* engagement, or the expression, of a face. It is
often wrong, and it is the more wrong the less you look like the people it was trained on.

**What it is not.** It does not measure attention, learning, effort or emotion, and it recognises nobody."""


MUST_NOT_BE_USED = """\
**What it must not be used for.** Learners or employees in the EU: the AI Act, Article 5(1)(f), prohibits inferring
people's emotions in education and at the workplace. Grading, discipline, proctoring, hiring, covert use, ranking
people, minors, identification, or any decision about a person."""
