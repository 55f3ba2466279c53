"""Check that the version and the changelog agree, and print the changelog's section of this version.

python scripts/changelog.py                a dry run: the version may be called unreleased
python scripts/changelog.py --tag v0.1.0   a release: the tag is this version, and the changelog has its date
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main(tag: str | None) -> str:
    """Return the notes of this version.

    Raises:
        SystemExit: the section is missing, empty or undated, or the tag is of another version.
    """
    source = (ROOT / "ov_minilm/_version.py").read_text(encoding="utf-8")
    version = re.findall(r'^__version__ = "(.+)"$', source, re.MULTILINE)[0]
    if not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", version):
        raise SystemExit(
            f"_version.py: {version!r}; write MAJOR.MINOR.PATCH, and a1, b1 or rc1 if it is early"
        )
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    first = re.search(r"^## (\S+) \((.+)\)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if first is None or first[1] != version or not first[3].strip():
        found = "none" if first is None else f"{first[1]} with {len(first[3].split())} words"
        raise SystemExit(f"CHANGELOG.md: the first section is {found}; write ## {version} (YYYY-MM-DD)")
    if tag is not None:
        if tag != f"v{version}":
            raise SystemExit(f"tag {tag} is not v{version}, the version in _version.py; change one of them")
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", first[2]):
            raise SystemExit(f"CHANGELOG.md: ## {version} ({first[2]}); write the day, YYYY-MM-DD")
        project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        if not re.search(r"^Repository = ", project, re.MULTILINE):
            raise SystemExit("pyproject.toml: [project.urls] has no Repository; write where the source is")
    return first[3].strip()


if __name__ == "__main__":
    print(main(sys.argv[2] if sys.argv[1:2] == ["--tag"] else None))
