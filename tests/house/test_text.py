"""What no text of the project may say, checked on every tracked file."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Spelled in pieces, so that this file passes its own test.
HOSTS = [
    ".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("download", "pytorch"), ("npmjs", "org"))
]
FORBIDDEN = {
    "a path of one machine": re.compile(r"(?<![\w./<])/(?:work|root|home/\w+|Users/\w+|tmp/venv)/"),
    "the host of a package registry": re.compile("|".join(map(re.escape, HOSTS))),
    "a note to ourselves without an issue": re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b(?!.*#\d)"),
}


def complaints(name: str, text: str) -> list[str]:
    """`file:line says ...` for each line that breaks a rule."""
    return [
        f"{name}:{number} holds {what}: {line.strip()[:80]}"
        for number, line in enumerate(text.splitlines(), start=1)
        for what, pattern in FORBIDDEN.items()
        if pattern.search(line)
    ]


def tracked() -> list[Path]:
    """Files of the checkout, added or not yet, as git sees them."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout.decode()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout: there is no list of tracked files")
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_no_tracked_text_says_what_it_must_not():
    found = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += complaints(path.relative_to(ROOT).as_posix(), text)
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "cd /" + "work/main",
        'open("/' + 'root/x")',
        "see /" + "home/ada/notes",
        "index https://" + HOSTS[0] + "/simple",
        "# TO" + "DO: later",
        "# FIX" + "ME",
    ],
)
def test_the_check_notices(line):
    assert len(complaints("file", f"fine\n{line}\n")) == 1


@pytest.mark.parametrize(
    "line", ["runs/" + "work/x", "./" + "root/x", "# TO" + "DO (#12): later", "a work/life balance"]
)
def test_the_check_lets_pass(line):
    assert complaints("file", line) == []
