"""What an endpoint is asked to read."""

from engagement_recognition.hub.endpoint.handler import EndpointHandler, Limits
from engagement_recognition.processor.input_errors import EngagementInputError

_NO_PICTURE = 415  # what has been read, and is none


class _WithoutModel(EndpointHandler):
    """Answers up to the point where a model is needed."""

    def __init__(self, limits: Limits) -> None:
        self.is_video_model, self.limits = False, limits


def reads(url: str, **limits: object) -> bool:
    """Whether an endpoint reads an address; a refusal becomes an error of ours, since that is what a row can hold."""
    answer = _WithoutModel(Limits(**limits))({"inputs": url})
    if answer["status"] == _NO_PICTURE:
        return True
    assert answer["status"] == 400, answer
    raise EngagementInputError(answer["error"])
