"""Where and how a model runs: what `--device`, `--dtype`, `--engine`, `--batch-size` and `--workers` say together."""

from dataclasses import dataclass, fields

from ..processor.input_errors import RecipeError

DTYPES = ("auto", "float32", "bfloat16", "float16", "int8")
ENGINES = ("torch", "onnxruntime", "openvino")
_CLIPS_ON_CUDA = 16
_MOST = {"batch_size": 4096, "workers": 256}


@dataclass(frozen=True)
class Placement:
    """Settings alone: nothing is loaded or asked for until a model is.

    Args:
        device: auto (CUDA, then MPS, then the CPU), cpu, cuda, cuda:1 or mps; exports run on the CPU.
        dtype: of the model's arithmetic. auto: float32 on a CPU and on MPS, on CUDA the half precision that agrees.
            int8: of an export that was written so.
        engine: torch, or onnxruntime and openvino, which run an export.
        batch_size: clips, or faces, a forward pass; None: chosen by the device.
        workers: processes that read files; None: one.

    Raises:
        RecipeError: another name, or a number out of range.
    """

    device: str = "auto"
    dtype: str = "auto"
    engine: str = "torch"
    batch_size: int | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        for name, known in (("dtype", DTYPES), ("engine", ENGINES)):
            if getattr(self, name) not in known:
                raise RecipeError(f"Expected {name} {', '.join(known)}, got {getattr(self, name)!r}.")
        for name, most in _MOST.items():
            number = getattr(self, name)
            if number is not None and not (type(number) is int and 1 <= number <= most):
                raise RecipeError(f"Expected {name} from 1 to {most}, got {number!r}.")
        if self.engine == "torch" and self.dtype == "int8":
            raise RecipeError("Expected --engine onnxruntime or openvino beside dtype int8, got torch; name an engine.")
        if self.engine != "torch" and self.dtype in ("bfloat16", "float16"):
            raise RecipeError(f"Expected dtype float32 or int8 of an export, got {self.dtype}; or name engine torch.")
        if self.engine != "torch" and self.device not in ("auto", "cpu"):
            raise RecipeError(f"Expected device cpu with engine {self.engine}, got {self.device}; exports run there.")


PLACEMENT_NAMES = tuple(field.name for field in fields(Placement))


def default_batch_size(device: str) -> int:
    """Clips a pass of the model; on a CPU one at a time is as fast as several."""
    return _CLIPS_ON_CUDA if device.startswith("cuda") else 1
