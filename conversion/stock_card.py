"""The README.md of a stock folder: what it is, that it is fed with face crops, and what it must not be used for.

A stock folder is used by people who have never seen this package; the scores stand in the card of the model it is from.
"""

from collections.abc import Mapping
from pathlib import Path

import yaml
from huggingface_hub import ModelCardData, metadata_load

from ..evaluation.measured_data import warnings_of
from ..evaluation.results_file import RESULTS_FILE, read_results
from ..hub.card import choose_license, encoder_name, title_of, use_limits
from ..hub.model_files import CARD_FILE
from ..modeling_engagement import EngagementPreTrainedModel
from ..processor.face_preparation import FacePreparation
from ..processor.input_errors import ModelLoadError

_CARD = """\
---
{front_matter}
---

# {title}, in stock form

A face goes in, one of these labels comes out: {labels}. They are estimates of what annotators would say of a face, not
of attention, learning, effort or emotion. Plain transformers runs it, without custom code; its logits are those of the
model it was made from ({origin}), whose card says what was measured.{warnings}

## It must be fed with face crops

{crops} The processor here resizes and normalises, and finds no face: of a whole photo the model says nothing.

```python
from transformers import pipeline

classify = pipeline("image-classification", model="PATH-OR-ID-OF-THIS-FOLDER")
classify("face_crop.png")
```

{must_not}

## Limits and licence

Populations, cameras, disability, neurodivergence and culture other than those of the training data are untested.
{license} The data it was trained on has licences of its own.
"""
_OURS = "The licence of the weights is the one above."
_NOT_KNOWN = "Whose licence the weights have is not known here; see the model it was made from."


def write_stock_card(folder: Path, model: EngagementPreTrainedModel, processor: FacePreparation, origin: Path) -> None:
    """The README.md of `folder`.

    Args:
        processor: of the model of ours, which finds and crops faces.
        origin: that model's folder, or its Hub id.

    Raises:
        ModelLoadError: the origin has results or a card that cannot be read.
    """
    results = read_results(origin) if (origin / RESULTS_FILE).is_file() else None
    license_name = _license_of(origin, results)
    front_matter = ModelCardData(
        library_name="transformers",
        pipeline_tag="image-classification",
        license=license_name,
        tags=["engagement-recognition", "face"],
    )
    warnings = [f"\n\n**Take care: {warning}.**" for warning in (warnings_of(results) if results else [])]
    card = _CARD.format(
        front_matter=front_matter.to_yaml(),
        title=title_of(model, str(results["stage"])) if results else f"Labels of a face: {encoder_name(model)}",
        labels=", ".join(model.config.id2label.values()),
        origin=f"`{origin.resolve().name if origin.is_dir() else origin}`",
        warnings="".join(warnings),
        crops=_describe_crops(processor),
        must_not=use_limits(),
        license=_NOT_KNOWN if license_name == "other" else _OURS,
    )
    (folder / CARD_FILE).write_text(card, encoding="utf-8")


def _describe_crops(processor: FacePreparation) -> str:
    if not processor.face_crop:
        return "One picture is one face that fills it, as those are that it was trained on."
    return (
        "One picture is one face: a square around the face's box, turned until the eyes are level, with "
        f"{processor.face_margin_ratio:.0%} of the box's longer side as margin on each side."
    )


def _license_of(origin: Path, results: Mapping[str, object] | None) -> str:
    """As its own card has it, else what is known of its weights."""
    card = origin / CARD_FILE
    try:
        told = (metadata_load(card) or {}).get("license") if card.is_file() else None
    except (ValueError, yaml.YAMLError) as error:
        raise ModelLoadError(f"Expected a card with YAML in front in {card}, got none that can be read.") from error
    return told or (choose_license(results) if results else "other")
