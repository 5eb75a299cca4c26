"""Renews docs/encoders.md from docs/measured/encoders/tried.json, which `python tests/helpers/encoder_trial.py` writes.

It takes minutes to try all families, so that this renews the page alone; a slow test tries them again.
"""

import sys
from pathlib import Path

import timm

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests/helpers"))

from encoder_trial import YES, TriedEncoders, TriedFamily, read_tried  # noqa: E402

from engagement_recognition.evaluation.markdown import markdown_table  # noqa: E402

PAGE = ROOT / "docs/encoders.md"
_TEXT = """\
# Image encoders

`from_encoder`, and `--encoder` or `encoder:` in a recipe, take any encoder of single pictures that timm or transformers
has. These were tried, with timm {timm}, transformers {transformers} and torch {torch}, each as a single-face model and
as a video model with an LSTM, with random weights and small where it can be made small.

- `resnet18`: timm's architecture with **random** weights.
- `resnet18.a1_in1k`, `timm/resnet18.a1_in1k` or `hf_hub:timm/resnet18.a1_in1k`: the weights of that tag, from the
  Hub. A tag that timm does not have is refused, by a line with those it has.
- `google/vit-base-patch16-224`: a repository of the Hub. Of a whole model the image encoder is taken: a classifier's,
  the vision tower of CLIP and SigLIP, the encoder of a masked autoencoder.
- A folder with any of these, or with a model of ours: stage two starts with stage one's encoder.

**Features** are what a classifier of the family reads: `map`, the mean over space of the last feature map; `pooled`,
the encoder's own pooled output with the layers before it; `token`, the class token. `encoder_features` chooses
otherwise. **Size**: "any" takes pictures of any size, 224 by default. The others have positions or windows made for one
size, which is the default. Where "others" stands, another size was taken, too, with the weights of the first: timm's
positions are resampled, transformers interpolates at each call. With "its own" alone, another size is refused.

All {num_families} were built, trained a step, saved, and loaded by a process that had not built them, with logits equal
to the bit. **Explained**: Grad-CAM leads to heat on the encoder's map. **Stock**: `engagement export --to stock` writes
a classifier that plain transformers runs. **ONNX**: `engagement export --to onnx`, image and video model; "·" is not
tried.

## timm

{timm_table}

## transformers

{transformers_table}
{notes}
## Refused, before data are read

{refused}

Encoders of text or of whole videos are no frame encoders. An encoder with code of its own on the Hub is not run.
"""


def page_of(found: TriedEncoders) -> str:
    """docs/encoders.md."""
    tables = {
        f"{package}_table": _table([row for row in found.families if row.package == package])
        for package in ("timm", "transformers")
    }
    notes = [f"- {row.name}, {name}: {said}" for row in found.families for name, said in _answers(row) if _is_no(said)]
    return _TEXT.format(
        **found.made_with,
        **tables,
        num_families=len(found.families),
        notes="\n## What does not work\n\n" + "\n".join(notes) + "\n" if notes else "",
        refused=markdown_table(("what", "the line"), [(each.title, each.line) for each in found.refusals]),
    )


def _table(rows: list[TriedFamily]) -> str:
    header = ("family", "pretrained", "features", "size (px)", "explained", "stock", "ONNX")
    return markdown_table(header, [_row(row) for row in rows])


def _row(row: TriedFamily) -> tuple[str, ...]:
    marks = ["·" if said is None else "yes" if said == YES else "no" for _, said in _answers(row)]
    pretrained = f"`{row.pretrained}`" if row.pretrained else "none"
    return (f"`{row.name}`", pretrained, f"`{row.features}`", _size(row), *marks)


def _answers(row: TriedFamily) -> tuple[tuple[str, str | None], ...]:
    return (("explained", row.explained), ("stock", row.stock), ("ONNX", row.onnx))


def _is_no(said: str | None) -> bool:
    return said not in (None, YES)


def _size(row: TriedFamily) -> str:
    if row.other_size is None:
        return "any"
    known = timm.get_pretrained_cfg(row.name) if row.package == "timm" else None  # others' are those of each repository
    own = f"its own ({known.input_size[-1]})" if known else "its own"
    return f"{own}, others" if row.other_size == YES else own


if __name__ == "__main__":
    PAGE.write_text(page_of(read_tried()), encoding="utf-8")
