"""Where and how a model runs: the options that several commands share, each declared once."""

from typing import Annotated

import typer

Faces = Annotated[
    bool,
    typer.Option(
        "--faces", help="Pictures and video frames are face crops already: use them whole, without face detection."
    ),
]
Device = Annotated[
    str, typer.Option(help="auto (CUDA, then Apple's MPS, then the CPU), cpu, cuda, cuda:1 or mps; exports: cpu.")
]
DType = Annotated[
    str,
    typer.Option(
        help="float32, bfloat16, float16 or, for an export, int8; auto: on CUDA a half precision whose scores agree, "
        "else float32."
    ),
]
Engine = Annotated[
    str,
    typer.Option(help="torch; onnxruntime or openvino run an export in the model's folder, else a cached one."),
]
BatchSize = Annotated[
    int | None,
    typer.Option(help="Clips, or faces, per forward pass; default: on CUDA 16 clips, else one. Halved if too large."),
]
Workers = Annotated[int | None, typer.Option(help="Files read at once, each in its own process; default: 1.")]
Address = Annotated[
    str | None,
    typer.Option(help="With --engine ray: the cluster, as host:port, or auto for a local one; default: this machine."),
]
