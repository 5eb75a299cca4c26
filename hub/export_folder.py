"""The export folder at the end of training: weights, config, processor, code, measured results, figures and a card."""

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
    """Write the export folder, completely or not at all; an older one is replaced.

    Args:
        results: also for the card.
        predictions: on validation and test, for later comparison and calibration.
        fingerprint: of their data.
        started_in: the initial weights' folder; a licence file there is copied, since it applies to the model.
    """
    with whole_folder(folder) as unfinished, writing(folder):
        model.save_pretrained(unfinished)
        processor.save_pretrained(unfinished)
        if started_in and (started_in / LICENSE_FILE).is_file():
            shutil.copyfile(started_in / LICENSE_FILE, unfinished / LICENSE_FILE)
        keep_measured(model, processor, results, unfinished, predictions, fingerprint)
        # transformers imports the copied code; the Hub does not need the bytecode.
        shutil.rmtree(unfinished / "__pycache__", ignore_errors=True)


def keep_measured(
    model: EngagementPreTrainedModel,
    processor: EngagementVideoProcessor | EngagementImageProcessor,
    results: Results,
    folder: Path,
    predictions: Sequence[SplitPredictions],
    fingerprint: str,
) -> None:
    """Write results, answer rule, predictions, figures and card; arguments as for `export_model`."""
    write_results(folder, results)
    answer_rule(results, processor).save(folder)
    write_predictions(folder, predictions, results.label_names, fingerprint)
    save_figures(folder, results)
    write_card(folder, model, processor, results)
