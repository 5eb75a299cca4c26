"""A model in int8 behind a gate: its encoder is quantised, and written only if labels stay the same.

nncf quantises the ONNX graph, from which OpenVINO's network is made too: one graph for both engines. It was preferred
to onnxruntime.quantization, with which a ResNet-18 was an eighth slower in ONNX Runtime. The head stays in float32: it
is small, and recurrent networks lose the most accuracy.
"""

import contextlib
import importlib.util
import io
import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..data.atomic_files import require_new_folder, whole_folder, writing
from ..data.required_packages import require_extra
from ..inference.export_folder import ExportRecord, Gate
from ..inference.exported_engine import load_engine, silent_openvino
from ..processor.input_errors import ModelLoadError, RecipeError
from .calibration_data import Examples, find_examples
from .export_networks import (
    Format,
    Source,
    complete_folder,
    open_source,
    require_packages_of,
    to_format,
    write_networks,
)

if TYPE_CHECKING:
    import onnx

LEAST_AGREEMENT = 0.99  # of labels
FEW = 50  # examples; a share of fewer is unreliable
PARTS = ("first", "last", "attention")  # may stay in float32
_MOST_CLIPS, _MOST_FACES = 500, 2000  # limits of the check
_CALIBRATION_FACES = 300
_LAST_SHARE = 0.1  # of the layers with weights: the last block in ResNet-18 and BEiT
_LAYERS = ("Conv", "Gemm", "MatMul")


def export_int8(
    model: str, output: Path, to: Format, data: Path, keep: Sequence[str] = (), cache_dir: Path = Path("runs/cache")
) -> ExportRecord:
    """A model → a folder as `export_networks` writes it, with the encoder in int8.

    It is written only if at least 99 % of labels, by the answer rule, equal those in float32, on examples outside the
    calibration data.

    Args:
        model: a model's folder, or its Hub id.
        output: a new or empty folder.
        data: for calibration and the check; see `calibration_data.find_examples`.
        keep: parts of the encoder, from PARTS, that stay in float32: its first layer, its last ones, its attention.
        cache_dir: where a raw source is prepared.

    Returns:
        The content of `export.json`, with the gate's result.

    Raises:
        EngagementInputError: the packages are not installed.
        ModelLoadError: there is no model, ONNX cannot express it, or its answers differ in int8; the line says by how
            much, and the result of quantising less.
        RecipeError: the model has no such part, or the data's frames were not prepared as the model reads them.
        DataError: the data cannot be used, or the folder is not empty or cannot be written.
    """
    require_new_folder(output, "the export")
    require_packages_of("onnx")
    require_packages_of(to)
    require_extra("int8", ("nncf",))
    source = open_source(model)
    calibrated, checked = find_examples(source.predictor, data, cache_dir)
    with tempfile.TemporaryDirectory() as work, whole_folder(output) as unfinished, writing(output):
        trials = _Trials(source, to, Path(work), calibrated, checked)
        gate = trials.run(keep, unfinished)
        if gate.label_agreement < LEAST_AGREEMENT:
            raise ModelLoadError(_refusal(trials, keep, gate, data))
        return complete_folder(source, unfinished, to, trials.difference, gate)


@dataclass(frozen=True)
class _Answers:
    scores: np.ndarray  # (n, num_labels)
    label_ids: np.ndarray  # (n,)
    is_certain: np.ndarray  # (n,) bool


class _Trials:
    """One encoder in int8, with more or less of it quantised; the answers in float32 are computed once."""

    def __init__(self, source: Source, to: Format, work: Path, calibrated: Examples, checked: Examples) -> None:
        import onnx

        self.source, self.to, self.work = source, to, work
        self.of_clips = source.predictor.is_video_model
        self.float32 = work / "float32"
        self.float32.mkdir()
        write_networks(source, self.float32, "onnx")
        self.difference = complete_folder(source, self.float32, "onnx").logits_difference
        self.faces, self.num_calibrated = _draw_faces(calibrated, self.of_clips), len(calibrated)
        self.checked = checked.spread(_MOST_CLIPS if self.of_clips else _MOST_FACES)
        self.expected = self._answers(source.predictor.engine.logits)
        self.graph = onnx.load(self.float32 / "encoder.onnx")

    def run(self, keep: Sequence[str], folder: Path) -> Gate:
        """Quantise all but `keep` into the folder's networks, and compare their answers."""
        left_out = [name for part in keep for name in self.nodes_of(part)]
        encoder = self.work / "encoder.onnx"
        _quantise(self.graph, self.faces, left_out, bool(self._nodes("attention")), encoder)
        for network in (encoder, self.float32 / "head.onnx"):
            to_format(network, folder, self.to)
        complete_folder(self.source, folder, self.to, self.difference)  # the engine reads export.json
        got, expected = self._answers(load_engine(folder).logits), self.expected
        is_same = got.label_ids == expected.label_ids
        is_same_answer = np.where(got.is_certain & expected.is_certain, is_same, got.is_certain == expected.is_certain)
        return Gate(
            of="clips" if self.of_clips else "faces",
            num_calibrated=self.num_calibrated,
            num_checked=len(self.checked),
            label_agreement=float(is_same.mean()),
            answer_agreement=float(is_same_answer.mean()),
            largest_score_difference=float(np.abs(got.scores - expected.scores).max()),
            kept_float32=list(keep),
        )

    def nodes_of(self, part: str) -> list[str]:
        """The names of a part's nodes; raises RecipeError if the encoder has none."""
        if nodes := self._nodes(part):
            return nodes
        raise RecipeError(f"The encoder of {self.source.folder} has no part {part}; leave --int8-keep {part} out.")

    def has(self, part: str) -> bool:
        """Whether the encoder has such a part."""
        return bool(self._nodes(part))

    def _nodes(self, part: str) -> list[str]:
        weights = {weight.name for weight in self.graph.graph.initializer}
        nodes = [node for node in self.graph.graph.node if node.op_type in _LAYERS]
        layers = [node.name for node in nodes if not weights.isdisjoint(node.input)]
        if part == "attention":  # products of two computed factors
            return [node.name for node in nodes if weights.isdisjoint(node.input)]
        return layers[:1] if part == "first" else layers[-max(1, round(_LAST_SHARE * len(layers))) :]

    def _answers(self, logits_of: Callable[[np.ndarray], np.ndarray]) -> _Answers:
        rule = self.source.rule
        batches = self.checked.batches(8 if self.of_clips else 64)
        scores = np.concatenate([rule.to_scores(logits_of(batch)) for batch in batches])
        label_ids, certainty = rule.decide(scores)
        return _Answers(scores, label_ids, certainty >= rule.threshold)


def _draw_faces(examples: Examples, of_clips: bool) -> list[np.ndarray]:
    """At most 300, each (1, C, size, size): from each clip an equal number, at shifted frames."""
    drawn = examples.spread(_CALIBRATION_FACES)
    if not of_clips:
        return list(drawn.batches(1))
    found = []
    for number, (clip,) in enumerate(drawn.batches(1)):
        most = max(1, _CALIBRATION_FACES // len(drawn))
        frames = np.roll(np.arange(len(clip)), -number)[:most]
        found += [clip[frame][None] for frame in frames]
    return found


def _quantise(
    graph: "onnx.ModelProto", faces: list[np.ndarray], left_out: list[str], is_transformer: bool, path: Path
) -> None:
    import onnx

    if importlib.util.find_spec("openvino"):
        silent_openvino()  # nncf would import it with telemetry
    logging.getLogger("torch.utils.cpp_extension").setLevel(
        logging.ERROR
    )  # nncf imports it, and it warns without a GPU
    nncf = silent_openvino("nncf")
    nncf.set_log_level(logging.ERROR)
    parameters = silent_openvino("nncf.quantization.advanced_parameters")
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        quantised = nncf.quantize(
            graph,
            nncf.Dataset(faces, lambda face: {"faces": face}),
            subset_size=len(faces),
            model_type=nncf.ModelType.TRANSFORMER if is_transformer else None,
            ignored_scope=nncf.IgnoredScope(names=left_out) if left_out else None,
            # Half the weights' range: processors without VNNI sum products in 16 bits, which would overflow.
            advanced_parameters=parameters.AdvancedQuantizationParameters(overflow_fix=parameters.OverflowFix.ENABLE),
        )
    onnx.save(quantised, path)


def _refusal(trials: _Trials, keep: Sequence[str], gate: Gate, data: Path) -> str:
    """The refusal: how far int8 missed, and the result of quantising less."""
    parts = [part for part in PARTS if part not in keep and trials.has(part)]
    more = [[part] for part in parts] + ([parts] if len(parts) > 1 else [])
    tried = {}
    for number, added in enumerate(more):
        folder = trials.work / f"less_{number}"
        folder.mkdir()
        options = " ".join(f"--int8-keep {part}" for part in (*keep, *added))
        tried[options] = trials.run([*keep, *added], folder).label_agreement
    less = ", ".join(f"{share:.1%} with {options}" for options, share in tried.items())
    enough = next((options for options, share in tried.items() if share >= LEAST_AGREEMENT), None)
    remedy = f"add {enough}" if enough else "none of these is enough, so use float32"
    few = f" (too few; pass more than {FEW})" if gate.num_checked < FEW else ""
    return (
        f"int8 gives the label of float32 for only {gate.label_agreement:.1%} of {gate.num_checked} {gate.of} in {data}"
        f"{few}, below {LEAST_AGREEMENT:.0%}; quantising less gives {less or 'nothing else'}: {remedy}."
    )
