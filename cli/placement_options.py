"""Where and how a model runs: the options that several commands share, each declared once."""

from typing import Annotated

import typer

Faces = Annotated[
    bool,
    typer.Option(
        "--faces", help="The pictures, and a video's frames, are faces already: look for none, take them as they are."
    ),
]
Device = Annotated[
    str, typer.Option(help="auto (CUDA, then Apple's MPS, then the CPU), cpu, cuda, cuda:1 or mps; exports: cpu.")
]
DType = Annotated[
    str,
    typer.Option(
        help="float32, bfloat16, float16 or, of an export, int8; auto: on CUDA the half precision that agrees, else "
        "float32."
    ),
]
Engine = Annotated[
    str,
    typer.Option(help="torch, onnxruntime or openvino: the export beside the model, or one made once and kept."),
]
BatchSize = Annotated[
    int | None,
    typer.Option(help="Clips, or faces, a pass of the model; default: on CUDA 16 clips, else one. Halved if too much."),
]
Workers = Annotated[
    int | None, typer.Option(help="Files read at once, each in a process of its own that may be ended; default: 1.")
]
Address = Annotated[
    str | None,
    typer.Option(help="With --engine ray: its cluster, host:port, or auto for the one here; default: this machine."),
]
