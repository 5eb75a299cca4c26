"""Makes the model in the box: a trained expression model → inference/weights/, calibrated, in float16, and measured so.

    python .ci/box.py EXPORT_FOLDER DATA

DATA is what the model was trained on, raw or prepared. The temperature that validation asks for is folded into the
classifier, so that the scores which users see are calibrated; no prediction changes with it. What is measured is the
model as it is shipped. tests/inference/shipped_logits.json, to which a test holds the weights, is renewed too.
"""

import json
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.metrics import log_loss

from engagement_recognition.answer_rule import ANSWER_RULE_FILE
from engagement_recognition.data.drawn.faces import FacePose, draw_frame, draw_subject
from engagement_recognition.evaluate_model import evaluate_model
from engagement_recognition.evaluation.results_file import RESULTS_FILE, read_results, write_results
from engagement_recognition.evaluation.results_schema import Results
from engagement_recognition.evaluation.split_evaluation import SplitPredictions, read_predictions
from engagement_recognition.hub.card import write_card
from engagement_recognition.hub.model_files import CARD_FILE, LICENSE_FILE
from engagement_recognition.inference.predictor import Predictor
from engagement_recognition.processor.input_errors import EngagementInputError, ModelLoadError

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "inference/weights"
GOLDEN = ROOT / "tests/inference/shipped_logits.json"
MAX_BYTES = 3_000_000
_CONFIGS = ("config.json", "preprocessor_config.json")
_FILES = (*_CONFIGS, "model.safetensors", RESULTS_FILE, ANSWER_RULE_FILE, CARD_FILE, LICENSE_FILE)


def make_box(export: Path, data: Path, output: Path, cache_dir: Path = Path("runs/cache")) -> None:
    """Write the box's files into `output`, in which its licence lies already; prints what came of it.

    Raises:
        ModelLoadError: no trained model of single faces, measured on this data, or one that is too large.
    """
    trained = read_results(export)
    validation, _ = read_predictions(export, "validation")
    temperature = fit_temperature(validation)
    with TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copyfile(output / LICENSE_FILE, folder / LICENSE_FILE)
        for config in _CONFIGS:
            (folder / config).write_text(without_code(export / config), encoding="utf-8")
        save_half(export, folder, temperature)
        write_results(folder, trained.model_copy(update={"measurements": []}))
        evaluate_model(folder, data, cache_dir=cache_dir)
        results = read_results(folder)
        require_same_data(trained, results, export)
        predictor = Predictor.from_pretrained(str(folder))
        write_card(folder, predictor.model, predictor.processor, results, is_shipped=True)
        files = [folder / file for file in _FILES]
        num_bytes = sum(file.stat().st_size for file in files)
        if num_bytes > MAX_BYTES:
            raise ModelLoadError(f"Expected at most {MAX_BYTES:,} bytes, got {num_bytes:,} from {export}.")
        for file in files:
            if file.name != LICENSE_FILE:
                shutil.copyfile(file, output / file.name)
        print(f"{output}: {num_bytes:,} bytes")
        describe(trained, results, temperature, largest_difference(export, folder, temperature))


def fit_temperature(validation: SplitPredictions) -> float:
    """The one that fits confidence to accuracy on validation; a bias for each label would change predictions."""

    def loss(log_temperature: float) -> float:
        scores = softmax(validation.logits / np.exp(log_temperature), axis=1)
        return log_loss(validation.label_ids, scores, labels=range(scores.shape[1]))

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def without_code(config: Path) -> str:
    """A config that names no code files: the package has them."""
    content = json.loads(config.read_text(encoding="utf-8"))
    content.pop("auto_map", None)
    return json.dumps(content, indent=2) + "\n"


def save_half(export: Path, folder: Path, temperature: float) -> None:
    """Weights in float16, those of the classifier divided by the temperature; loading makes them float32 again."""
    weights = load_file(export / "model.safetensors")
    for name, tensor in weights.items():
        if name.startswith("classifier."):
            tensor = tensor / temperature
        weights[name] = tensor.half() if tensor.is_floating_point() else tensor
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def require_same_data(trained: Results, shipped: Results, export: Path) -> None:
    """Raises ModelLoadError where the data is not that which the model was trained on."""
    measured = shipped.measured_on("test")
    if trained.stage != "expression" or measured is None or not trained.is_own_data(measured):
        got = measured.data.fingerprint[:12] if measured else "none"
        raise ModelLoadError(f"Expected an expression model in {export} and its own training data, got data {got}.")


def largest_difference(export: Path, folder: Path, temperature: float) -> float:
    """Of the test logits of the shipped weights and of the calibrated float32 ones."""
    expected, got = (read_predictions(place, "test")[0].logits for place in (export, folder))
    return float(np.abs(got - expected / temperature).max())


def describe(trained: Results, shipped: Results, temperature: float, difference: float) -> None:
    """Accuracy and calibration error on test, as trained and as shipped."""
    for name, results in (("as trained, float32", trained), ("as shipped, float16", shipped)):
        measured = results.measured_on("test")
        if measured is not None:
            test = measured.evaluation
            ece = test.calibration.as_trained.ece
            print(f"{name}: accuracy {test.scores.accuracy:.4f} on {test.num_clips} test pictures, ECE {ece:.4f}")
    print(f"temperature {temperature:.3f}; test logits differ by at most {difference:.4f}")


def drawn_face_logits(folder: Path) -> list[float]:
    """What the model says of a drawn face that fills the picture; no detection, which other versions do otherwise."""
    predictor = Predictor.from_pretrained(str(folder))
    face = draw_frame(draw_subject(0), FacePose())[60:420, 140:500]  # (360, 360, 3)
    with torch.inference_mode():
        return predictor.model(predictor.processor.to_pixel_values(face[None])).logits[0].tolist()


if __name__ == "__main__":
    try:
        make_box(Path(sys.argv[1]), Path(sys.argv[2]), WEIGHTS)
    except EngagementInputError as error:
        sys.exit(f"error: {error}")
    GOLDEN.write_text(json.dumps([round(value, 4) for value in drawn_face_logits(WEIGHTS)]) + "\n", encoding="utf-8")
    print("next: make readme")
