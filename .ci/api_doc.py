"""Writes docs/api.md: what users import, with signatures, the first paragraph of each docstring and the arguments.

Signatures come from the source (`ast`), since those of `inspect` name types differently in each Python version. A
generator of whole sites would document every module, and most of them are no interface.
"""

import ast
import importlib
import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "engagement_recognition"
_SECTIONS = ("Args:", "Returns:", "Raises:")
_BOUND = ("self", "cls")
PAGE = Path(__file__).parents[1] / "docs/api.md"
HEAD = f"""\
# Python API

The public API by task, with signatures, summaries and arguments; `help(NAME)` in Python shows the whole docstring.
Everything else in `{PACKAGE}` may change without notice. How these are used: [python.md](python.md) and
[recipes.md](recipes.md). `make readme` generates this page from the docstrings.
"""
# Group -> module -> names; a name with a dot is a method.
GROUPS: dict[str, dict[str, tuple[str, ...]]] = {
    "Models": {
        "": ("register_auto_classes",),
        "configuration_engagement": ("EngagementConfig",),
        "modeling_engagement": (
            "EngagementForVideoClassification", "EngagementForVideoClassification.forward",
            "EngagementForVideoClassification.from_encoder", "EngagementForImageClassification",
            "EngagementForImageClassification.forward", "EngagementFrameEncoder",
        ),
    },
    "Processors": {
        "processor.video_processing_engagement": ("EngagementVideoProcessor", "EngagementVideoProcessor.prepare_clip"),
        "processor.image_processing_engagement": ("EngagementImageProcessor", "EngagementImageProcessor.prepare_faces"),
    },
    "Predictions": {
        "inference.predictor": (
            "Predictor", "Predictor.from_pretrained", "Predictor.predict", "Predictor.predict_video",
            "Predictor.predict_photo",
        ),
        "inference.predictions": ("VideoPrediction", "PhotoPrediction", "FacePrediction", "Refusal"),
        "inference.many_files": ("predict_many",),
        "inference.shipped_model": ("shipped_expression_model",),
        "answer_rule": ("AnswerRule", "AnswerRule.from_pretrained", "AnswerRule.to_scores", "AnswerRule.answer"),
        "live.engine": ("LiveEngagement", "LiveEngagement.step"),
    },
    "Explanations": {"explanation.explain_files": ("explain_file", "ExplainedClip")},
    "Data": {
        "data.preparation.prepared_data": ("load_prepared", "PreparedData"),
        "data.open_data": ("open_or_prepare", "DataOptions"),
        "hub.push_data": ("push_data",),
    },
    "Training": {
        "train": ("train",),
        "training.arguments": ("read_recipe", "Recipe"),
        "training.recipes": ("find_recipe", "recipe_names"),
    },
    "Evaluation": {
        "evaluation.results_file": ("read_results",),
        "evaluation.results_schema": ("Results", "Results.measured_on", "Results.headline"),
        "evaluation.metrics": ("compute_scores",),
        "evaluation.engagement_metric": ("EngagementMetric", "EngagementMetric.score_trainer_predictions"),
        "evaluation.bootstrap": ("bootstrap_intervals", "paired_bootstrap"),
        "evaluation.comparison": ("compare_runs", "describe_comparison"),
    },
    "Errors": {
        "processor.input_errors": (
            "EngagementInputError", "VideoReadError", "ImageReadError", "NoFaceError", "DataError", "LeakageError",
            "RecipeError", "ModelLoadError",
        ),
    },
}  # fmt: skip


def render() -> str:
    """docs/api.md."""
    parts = [HEAD]
    for group, modules in GROUPS.items():
        parts.append(f"## {group}\n")
        parts += [describe(module, name) for module, names in modules.items() for name in names]
    return "\n".join(parts)


def describe(module: str, name: str) -> str:
    """A heading, where it is imported from, the signature, and what it is, or else its arguments.

    Raises:
        ValueError: it has no docstring.
    """
    place = f"{PACKAGE}.{module}".rstrip(".")
    found: object = importlib.import_module(place)
    for part in name.split("."):
        found = inspect.getattr_static(found, part)
    found = inspect.unwrap(found.__func__ if isinstance(found, classmethod) else found)
    written = inspect.cleandoc(found.__doc__ or "")
    if not written:
        raise ValueError(f"{place}.{name} has no docstring; write one.")
    home = PACKAGE if name in importlib.import_module(PACKAGE).__all__ else place
    imported = "" if "." in name else f"`from {home} import {name}`\n\n"
    return f"### {name}\n\n{imported}```\n{signature(found, name)}\n```\n\n{summary(written)}\n"


def summary(written: str) -> str:
    """The first paragraph of a docstring, and the section on arguments."""
    first, *rest = written.split("\n\n")
    if first.startswith(_SECTIONS):
        return f"```\n{written}\n```"
    return "\n\n".join([first, *(f"```\n{part}\n```" for part in rest if part.startswith("Args:"))])


def signature(found: object, name: str) -> str:
    """As it would be called, one argument per line where it is long."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(found))).body
    returned = ""
    if not isinstance(node, ast.ClassDef):
        given, returned = of_function(node), f" -> {ast.unparse(node.returns)}" if node.returns else ""
    elif maker := next((part for part in node.body if getattr(part, "name", "") == "__init__"), None):
        given = of_function(maker)
    else:
        given = of_fields(node, textwrap.dedent(inspect.getsource(found)))
    arguments = list(given)
    line = f"{name}({' '.join(arguments).removesuffix(',')}){returned}"
    if "  #" not in line and len(line) <= 100:
        return line
    return "\n".join([f"{name}(", *(f"    {one}" for one in arguments), f"){returned}"])


def of_function(node: ast.FunctionDef) -> Iterator[str]:
    """Its arguments with types and defaults, without self and cls."""
    given = node.args
    positional = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(positional) - len(given.defaults)) + given.defaults
    yield from (with_default(*pair) for pair in zip(positional, defaults, strict=True) if pair[0].arg not in _BOUND)
    if given.vararg or given.kwonlyargs:
        yield f"*{ast.unparse(given.vararg) if given.vararg else ''},"
    yield from map(with_default, given.kwonlyargs, given.kw_defaults)
    if given.kwarg:
        yield f"**{ast.unparse(given.kwarg)},"


def of_fields(node: ast.ClassDef, source: str) -> Iterator[str]:
    """Those of a dataclass, a named tuple or a record, each with the comment on its line; none of a plain exception."""
    lines = source.splitlines()
    for part in node.body:
        if isinstance(part, ast.AnnAssign) and not ast.unparse(part.target).startswith("_"):
            default = f" = {ast.unparse(part.value)}" if part.value else ""
            told = lines[(part.end_lineno or part.lineno) - 1][part.end_col_offset or 0 :].strip()
            yield f"{ast.unparse(part.target)}: {ast.unparse(part.annotation)}{default},{told and f'  {told}'}"


def with_default(argument: ast.arg, default: ast.expr | None) -> str:
    return ast.unparse(argument) + (f" = {ast.unparse(default)}" if default else "") + ","


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
