"""The export folder that training ends in: weights, config, processor, code, measured results, figures and a card."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from ..data.atomic_files import whole_folder, writing
from ..evaluation.figures import save_figures
from ..evaluation.results_file import write_results
from ..evaluation.split_evaluation import SplitPredictions, write_predictions
from ..modeling_engagement import EngagementPreTrainedModel
from ..processor.face_preparation import FacePreparation
from .card import write_card


def export_model(
    model: EngagementPreTrainedModel,
    processor: FacePreparation,
    results: dict[str, object],
    folder: Path,
    predictions: Sequence[SplitPredictions],
) -> None:
    """Write the export folder, whole or not at all; an older one is replaced.

    Args:
        results: what `results.json` holds; the card is rendered from it.
        predictions: of validation and test, from which later commands compare and calibrate.
    """
    with whole_folder(folder) as unfinished, writing(folder):
        model.save_pretrained(unfinished)
        processor.save_pretrained(unfinished)
        results = write_results(unfinished, **results)
        write_predictions(unfinished, predictions, results["label_names"])
        save_figures(unfinished, results)
        write_card(unfinished, model, processor, results)
        # transformers makes a package of the copied code; the Hub needs none of it.
        shutil.rmtree(unfinished / "__pycache__", ignore_errors=True)
