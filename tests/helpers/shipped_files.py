"""The files of code that are copied to the Hub beside a model's weights."""

from places import ROOT

PROCESSOR = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "processor").glob("[!_]*.py"))]
SHIPPED = ["answer_rule.py", "configuration_engagement.py", "modeling_engagement.py", "face_encoders.py", *PROCESSOR]
