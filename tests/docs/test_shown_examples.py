"""Recipes, options and output that pages show are those of the files and the code that they come from."""

import re
from dataclasses import fields

import yaml
from doc_pages import blocks
from places import ROOT
from transformers import TrainingArguments

from engagement_recognition.data.schema import LABEL_SCHEMES
from engagement_recognition.evaluation.results_schema import Results
from engagement_recognition.evaluation.split_evaluation import describe_scores
from engagement_recognition.training.arguments import StageArguments

DEMO = Results.model_validate_json((ROOT / "docs/measured/demo_engagement.json").read_text(encoding="utf-8"))


def section(page: str, heading: str) -> str:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def named_in_tables(text: str) -> set[str]:
    """What the first columns of the tables name as code."""
    cells = re.findall(r"^\| (`.*?) \|", text, re.M)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_the_recipe_that_is_shown_is_the_whole_recipe():
    (shown,) = blocks(ROOT / "docs/training.md", "yaml")
    assert yaml.safe_load(shown) == yaml.safe_load((ROOT / "recipes/from_box_clips.yaml").read_text(encoding="utf-8"))


def test_the_options_that_are_explained_exist():
    known = {item.name for kind in (StageArguments, TrainingArguments) for item in fields(kind)}
    explained = named_in_tables(section("training.md", "Recipes and options"))
    assert len(explained) > 10 and explained <= known


def test_every_label_scheme_and_every_check_of_an_audit_is_explained():
    assert named_in_tables(section("your_data.md", "Label schemes")) == set(LABEL_SCHEMES)
    audit = section("your_data.md", "Audit")
    assert DEMO.data is not None and DEMO.data.audit is not None
    for finding in DEMO.data.audit.findings:
        assert finding.name.removesuffix(" predicts label") in audit


def test_the_scores_that_are_read_out_are_those_of_the_demo():
    measured = DEMO.measured_on("test")
    assert measured is not None
    page = ROOT / "docs/evaluation.md"
    (shown,) = blocks(page, "text")
    assert shown.replace("\n", "; ") == describe_scores(measured.evaluation, "test")
    decision, text = measured.evaluation.decision, " ".join(page.read_text(encoding="utf-8").split())
    assert decision is not None and f"threshold ({decision.threshold:.3f})" in text
    assert f"({decision.scores.fitted.macro_f1:.3f} and {decision.scores.argmax.macro_f1:.3f})" in text
