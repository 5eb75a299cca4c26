"""The export folder that training ends in: weights, config, processor, code, measured results, figures and a card."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from ..data.atomic_files import whole_folder, writing
from ..evaluation.answers import answer_rule
from ..evaluation.figures import save_figures
from ..evaluation.results_file import write_results
from ..evaluation.results_schema import Results
from ..evaluation.split_evaluation import SplitPredictions, write_predictions
from ..modeling_engagement import EngagementPreTrainedModel
from ..processor.image_processing_engagement import EngagementImageProcessor
from ..processor.video_processing_engagement import EngagementVideoProcessor
from .card import write_card
from .model_files import LICENSE_FILE


def export_model(
    model: EngagementPreTrainedModel,
    processor: EngagementVideoProcessor | EngagementImageProcessor,
    results: Results,
    folder: Path,
    predictions: Sequence[SplitPredictions],
    fingerprint: str,
    started_in: Path | None = None,
) -> None:
    """Write the export folder, whole or not at all; an older one is replaced.

    Args:
        results: the card is rendered from them.
        predictions: of validation and test, from which later commands compare and calibrate.
        fingerprint: of their data.
        started_in: where the first weights are from; a licence that lies there is theirs, and goes with the model.
    """
    with whole_folder(folder) as unfinished, writing(folder):
        model.save_pretrained(unfinished)
        processor.save_pretrained(unfinished)
        if started_in and (started_in / LICENSE_FILE).is_file():
            shutil.copyfile(started_in / LICENSE_FILE, unfinished / LICENSE_FILE)
        keep_measured(model, processor, results, unfinished, predictions, fingerprint)
        # transformers makes a package of the copied code; the Hub needs none of it.
        shutil.rmtree(unfinished / "__pycache__", ignore_errors=True)


def keep_measured(
    model: EngagementPreTrainedModel,
    processor: EngagementVideoProcessor | EngagementImageProcessor,
    results: Results,
    folder: Path,
    predictions: Sequence[SplitPredictions],
    fingerprint: str,
) -> None:
    """Write results, how to answer by them, predictions, and what is drawn from results; arguments as those of
    `export_model`."""
    write_results(folder, results)
    answer_rule(results, processor).save(folder)
    write_predictions(folder, predictions, results.label_names, fingerprint)
    save_figures(folder, results)
    write_card(folder, model, processor, results)
