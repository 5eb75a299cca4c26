"""Versions, devices, codecs and threads, as lines to paste into a bug report.

It works where packages are too old for the other commands, and contains no path and no name of a person or machine.
"""

import importlib
import os
import platform
from collections.abc import Callable, Iterator
from types import ModuleType

from ..data.required_packages import installed_version, lacks, required_packages
from ..processor.input_errors import in_one_line

_EXTRAS = ("app", "heif", "int8", "live", "onnx", "openvino")
_DECODERS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg2video", "mjpeg", "prores", "wmv2", "flv")
_VARIABLES = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def describe_environment() -> Iterator[tuple[str, str]]:
    """Name and value of each line, in order."""
    yield "engagement-recognition", installed_version("engagement-recognition") or "not installed"
    yield "Python", f"{platform.python_version()} ({platform.python_implementation()})"
    yield "system", platform.platform()
    yield "processors", _describe_processors()
    for name, describe in (("torch", _describe_torch), ("PyAV", _describe_codecs)):
        yield name, _or_error(describe)
    engines = ("torch", "onnxruntime", "openvino")
    yield "engines", ", ".join(f"{name} {installed_version(name) or 'not installed'}" for name in engines)
    yield "device by default", _or_error(_describe_default)
    for variable in _VARIABLES:
        yield variable, os.environ.get(variable, "not set")
    yield "packages", _describe_packages("")
    for extra in _EXTRAS:
        yield f"extra {extra}", _describe_packages(extra)


def _or_error(describe: Callable[[], str]) -> str:
    """The error is reported, not raised: a failing import may be what the bug report is about."""
    try:
        return describe()
    except Exception as error:
        return f"{type(error).__name__}: {in_one_line(error)}"


def _describe_processors() -> str:
    from ..data.worker_processes import usable_cpus

    memory = ""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB memory"
    return f"{usable_cpus()} usable of {os.cpu_count()} ({platform.machine()}){memory}"


def _describe_torch() -> str:
    torch = importlib.import_module("torch")
    parts = [torch.__version__, f"{torch.get_num_threads()} threads"]
    parts += [f"CPU with {torch.backends.cpu.get_cpu_capability()}"]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        parts.append(f"cuda:{index} {properties.name}, {properties.total_memory / 2**30:.1f} GiB")
    if not torch.cuda.is_available():
        parts.append(f"no CUDA device (built for {torch.version.cuda or 'none'})")
    parts.append("MPS" if torch.backends.mps.is_available() else "no MPS device")
    return "; ".join(parts)


def _describe_default() -> str:
    """What `--device auto --dtype auto` selects; which half precision agrees depends on the model."""
    from ..inference.devices import choose_device, half_precisions

    device = choose_device()
    halves = half_precisions(device)
    precision = f"{' or '.join(halves)} where a model's scores agree, else float32" if halves else "float32"
    return f"{device}, {precision}"


def _describe_codecs() -> str:
    av = importlib.import_module("av")
    missing = [name for name in _DECODERS if not _has_codec(av, name, "r")]
    parts = [av.__version__, f"FFmpeg {av.ffmpeg_version_info}"]
    parts.append(f"reads {', '.join(name for name in _DECODERS if name not in missing)}")
    parts += [f"does not read {', '.join(missing)}"] if missing else []
    parts.append("writes h264" if _has_codec(av, "libx264", "w") else "does not write h264")
    return "; ".join(parts)


def _has_codec(av: ModuleType, name: str, mode: str) -> bool:
    try:
        av.codec.Codec(name, mode)
    except ValueError:  # UnknownCodecError is one
        return False
    return True


def _describe_packages(extra: str) -> str:
    described = []
    for needed in required_packages(extra):
        version = installed_version(needed.name)
        note = f" (needs {needed.specifier})" if lacks(needed) else ""
        described.append(f"{needed.name} {version or 'none'}{note}")
    return ", ".join(described) or "unknown: this package is not installed"
