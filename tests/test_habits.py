"""What a change is asked for: hooks that run what `make setup` installs, templates, one version, no secrets."""

import runpy

import pytest
import yaml
from packaging.requirements import Requirement
from places import ROOT, setup_cfg

import engagement_recognition

find_secrets = runpy.run_path(str(ROOT / ".ci/find_secrets.py"))["find_secrets"]
SECRETS = [
    "token = 'hf_" + "aB" * 17 + "'",
    "ghp_" + "a1" * 18,
    "AKIA" + "A1" * 8,
    "-----BEGIN RSA " + "PRIVATE KEY-----",
    "https://me:" + "pass@example.org/x",
]


def test_the_version_is_said_once_and_citation_and_changelog_agree():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    version = setup_cfg()["metadata"]["version"]
    assert str(cited["version"]) == version == engagement_recognition.__version__
    assert f"\n## {version} ({cited['date-released']})\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_hooks_run_what_setup_installs_and_fetch_nothing():
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    extra = {Requirement(line).name for line in setup_cfg()["options.extras_require"]["test"].split("\n") if line}
    assert local["repo"] == "local" and {hook["language"] for hook in local["hooks"]} == {"system"}
    for hook in local["hooks"]:
        program, *arguments = hook["entry"].split()
        name = program.removeprefix(".venv/bin/")
        assert name in extra or (name == "python" and (ROOT / arguments[0]).is_file())


@pytest.mark.parametrize("template", ["ISSUE_TEMPLATE/bug.md", "ISSUE_TEMPLATE/request.md", "pull_request_template.md"])
def test_templates_ask_for_what_env_says(template: str):
    assert "`engagement env`" in (ROOT / ".github" / template).read_text(encoding="utf-8")


@pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: secret[:10])
def test_secrets_are_found_by_line_and_not_repeated(secret: str):
    ((number, kind),) = find_secrets(f"first\n{secret}\n")
    assert number == 2 and secret not in kind


def test_what_is_none_is_let_through():
    assert find_secrets(f"{'0a' * 32}\nhf_token\nhttps://example.org/a:b\n{SECRETS[1]} # not a secret\n") == []
