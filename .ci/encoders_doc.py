"""Renews docs/encoders.md from docs/measured/encoders/tried.json, which `python tests/helpers/encoder_trial.py` writes.

It takes minutes to try all families, so that this renews the page alone; a slow test tries them again.
"""

import re
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

`from_encoder`, `--encoder`, and `encoder:` in a recipe accept any image encoder of timm or transformers. Those below
were tried with timm {timm}, transformers {transformers} and torch {torch}, each as a single-face model and as a clip
model with an LSTM, with random weights, and in a small size where the family has one.

This page shows compatibility, not quality. To begin, start from the bundled expression model (`box`), which was trained
on faces ([how](training.md)), or from a small encoder that works with everything, such as `resnet18.a1_in1k` or
`mobilenetv3_small_050.lamb_in1k`.

- `resnet18`: timm's architecture with **random** weights.
- `resnet18.a1_in1k`, `timm/resnet18.a1_in1k` or `hf_hub:timm/resnet18.a1_in1k`: the weights with that tag, from the
  Hub. A tag that timm does not have is refused, and the available tags are listed.
- `google/vit-base-patch16-224`: a repository on the Hub. Of a whole model only the image encoder is used: that of a
  classifier, the vision tower of CLIP and SigLIP, the encoder of a masked autoencoder.
- A folder with any of these, or with a model of this project: stage two starts with stage one's encoder.

**Features** are what a classifier of the family reads: `map`, the mean over space of the last feature map; `pooled`,
the encoder's own pooled output with the layers before it; `token`, the class token. `encoder_features` chooses
another. **Size**: "any" accepts images of any size, 224 by default. The others have positions or windows made for one
size, which is the default. "others": it was also built at another size with the same weights (timm's positions are
resampled, transformers interpolates at each call). With "its own" alone, another size is refused.

All {num_families} were built, trained for one step, saved, and loaded by a new process, with logits equal to the bit.
**Explained**: Grad-CAM gives a heat map. **Stock**: `engagement export --to stock` writes a classifier that plain
transformers runs. **ONNX**: `engagement export --to onnx`, single-face and clip model; "·" was not tried.

## timm

{timm_table}

## transformers

{transformers_table}
{notes}
## Refused, before data is read

Messages are shown without technical details in brackets.

{refused}

Encoders of text or of whole videos are not frame encoders. Encoders that need custom code from the Hub
(`trust_remote_code`) are refused.
"""

_NOTES = """
## What does not work

"Stock": transformers' own classifier cannot hold what is named.

{notes}
"""


def page_of(found: TriedEncoders) -> str:
    """docs/encoders.md."""
    tables = {
        f"{package}_table": _table([row for row in found.families if row.package == package])
        for package in ("timm", "transformers")
    }
    notes = [
        f"- {row.name}, {name}: {_reason(said)}"
        for row in found.families
        for name, said in _answers(row)
        if said is not None and said != YES
    ]
    return _TEXT.format(
        **found.made_with,
        **tables,
        num_families=len(found.families),
        notes=_NOTES.format(notes="\n".join(notes)) if notes else "",
        refused=markdown_table(
            ("what", "message"), [(each.title, re.sub(r" \(.*\)", "", each.line)) for each in found.refusals]
        ),
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


def _reason(said: str) -> str:
    """Without what all of these say, and without another library's error in brackets."""
    return re.sub(r" \(.*", "", said.removeprefix("Expected a model that a stock image classifier can hold, got "))


def _size(row: TriedFamily) -> str:
    if row.other_size is None:
        return "any"
    known = timm.get_pretrained_cfg(row.name) if row.package == "timm" else None  # others' are those of each repository
    own = f"its own ({known.input_size[-1]})" if known else "its own"
    return f"{own}, others" if row.other_size == YES else own


if __name__ == "__main__":
    PAGE.write_text(page_of(read_tried()), encoding="utf-8")
