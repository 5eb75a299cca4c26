"""Finds what opens a door in files that are about to be committed: `find_secrets.py FILE...`; exit code 1 if anything.

Known forms alone, and no measure of randomness: fingerprints and checksums, of which there are many here, look random
too. A line that has to stay, such as a made-up token in a test, ends with `not a secret`.
"""

import re
import sys
from pathlib import Path

_FORMS = {
    "a token of the Hugging Face Hub": r"\bhf_[A-Za-z]{30,}\b",
    "a token of GitHub": r"\b(gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{40,})\b",
    "a key of Amazon": r"\b(AKIA|ASIA)[0-9A-Z]{16}\b",
    "a token of PyPI": r"\bpypi-[\w-]{60,}",
    "a key of an API": r"\bsk-[\w-]{32,}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY",
    "a password in an address": r"\bhttps?://[^\s/:@'\"{}]+:[^\s/@'\"{}]{3,}@",
}
ALLOWED = "not a secret"


def find_secrets(text: str) -> list[tuple[int, str]]:
    """The number of each line that holds one, from 1 on, and what it is."""
    lines = [line for line in enumerate(text.splitlines(), start=1) if not line[1].rstrip().endswith(ALLOWED)]
    return [(number, kind) for number, line in lines for kind, form in _FORMS.items() if re.search(form, line)]


def main(paths: list[str]) -> int:
    found = [(path, *secret) for path in paths for secret in find_secrets(Path(path).read_text(errors="replace"))]
    for path, number, kind in found:  # never the secret itself
        print(f"{path}:{number}: {kind}; take it out, and have it revoked if it has been anywhere")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
