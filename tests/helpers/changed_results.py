"""Measured results as they are, but for what a test changes."""

from engagement_recognition.evaluation.results_schema import Measurement, Results
from engagement_recognition.evaluation.score_records import SplitEvaluation


def scores_on_test(results: Results) -> SplitEvaluation:
    """What was measured on test, and speaks for the model."""
    measured = results.measured_on("test")
    assert measured is not None
    return measured.evaluation


def change_data(results: Results, **changes: object) -> Results:
    """Of other data: the model was trained on that, and measured on it."""
    assert results.data is not None
    measurements = [
        measured.model_copy(update={"data": measured.data.model_copy(update=changes)})
        for measured in results.measurements
    ]
    return results.model_copy(update={"data": results.data.model_copy(update=changes), "measurements": measurements})


def change_test(results: Results, **changes: object) -> Results:
    """Other scores, or whatever else an evaluation holds."""
    measured = results.measured_on("test")
    assert measured is not None
    evaluation = measured.evaluation.model_copy(update=changes)
    return results.with_measurement(measured.model_copy(update={"evaluation": evaluation}))


def elsewhere(results: Results, **changes: object) -> Measurement:
    """The same scores, as if they were measured on other data."""
    measured = results.measured_on("test")
    assert measured is not None
    data = measured.data.model_copy(update={"fingerprint": "f" * 64, **changes})
    return measured.model_copy(update={"data": data})
