"""Where and how a model runs: `--device`, `--dtype`, `--engine`, `--batch-size` and `--workers` together."""

from dataclasses import dataclass

from ..processor.input_errors import RecipeError

DTYPES = ("auto", "float32", "bfloat16", "float16", "int8")
ENGINES = ("torch", "onnxruntime", "openvino")
_CLIPS_ON_CUDA = 16
_MOST = {"batch_size": 4096, "workers": 256}


@dataclass(frozen=True)
class Placement:
    """Settings only: nothing is loaded or checked on the machine until a model is loaded.

    Args:
        device: auto (CUDA, then MPS, then the CPU), cpu, cuda, cuda:1 or mps; exports run on the CPU.
        dtype: of the model's arithmetic. auto: float32 on a CPU and MPS, on CUDA a half precision whose scores agree.
            int8: for an export written in it.
        engine: torch, or onnxruntime and openvino, which run an export.
        batch_size: clips, or faces, per forward pass; None: chosen by the device.
        workers: processes that read files; None: one.

    Raises:
        RecipeError: an unknown name, or a number out of range.
    """

    device: str = "auto"
    dtype: str = "auto"
    engine: str = "torch"
    batch_size: int | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        for name, known in (("dtype", DTYPES), ("engine", ENGINES)):
            if getattr(self, name) not in known:
                raise RecipeError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}.")
        for name, most in _MOST.items():
            number = getattr(self, name)
            if number is not None and not (type(number) is int and 1 <= number <= most):
                raise RecipeError(f"{name} must be from 1 to {most}, got {number!r}.")
        if self.engine == "torch" and self.dtype == "int8":
            raise RecipeError("dtype int8 needs --engine onnxruntime or openvino, got torch; name one of them.")
        if self.engine != "torch" and self.dtype in ("bfloat16", "float16"):
            raise RecipeError(f"An export has dtype float32 or int8, got {self.dtype}; choose one, or engine torch.")
        if self.engine != "torch" and self.device not in ("auto", "cpu"):
            raise RecipeError(f"The engine {self.engine} runs on device cpu only, got {self.device}.")


def default_batch_size(device: str) -> int:
    """Clips per forward pass; on a CPU one at a time is as fast as several."""
    return _CLIPS_ON_CUDA if device.startswith("cuda") else 1
