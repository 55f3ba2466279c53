"""MkDocs hook that generates pages from other files of the repository.

The pages of benchmarks, changelog and contributing are copies of these files, with links changed to pages of
the site. The reference of commands is the output of `--help`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {
    "bench/README.md": "benchmarks.md",
    "bench/peers/README.md": "peers.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
LINK = re.compile(r"(!?\[[^\]]*\]\()([^)#:\s]+)(#[^)]*)?\)")
COG = re.compile(r"<!-- \[\[\[cog.*?\]\]\] -->|<!-- \[\[\[end\]\]\] -->", re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages, and the pictures that they show."""
    for source, name in PAGES.items():
        text, pictures = page(source)
        files.append(File.generated(config, name, content=text))
        for picture in pictures:
            files.append(File.generated(config, picture.name, abs_src_path=str(picture)))
    files.append(File.generated(config, "commands.md", content="\n".join(commands())))
    return files


def page(source: str) -> tuple[str, list[Path]]:
    """Return the text of a file, with links changed to pages of the site, and the pictures that it shows.

    A picture that does not exist yet is left out; any other broken link is an error.
    """
    pictures = []

    def to_site(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[2]))
        if target in PAGES:
            return f"{match[1]}{PAGES[target]}{match[3] or ''})"
        if target == "README.md":
            return f"{match[1]}index.md)"
        if target.startswith("docs/"):
            return f"{match[1]}{target.removeprefix('docs/')}{match[3] or ''})"
        if not match[1].startswith("!"):
            raise ValueError(f"{source} links to {target}, which is not a page of the site")
        if not (ROOT / target).is_file():
            return ""
        pictures.append(ROOT / target)
        return f"{match[1]}{posixpath.basename(target)})"

    text = (ROOT / source).read_text(encoding="utf-8")
    return LINK.sub(to_site, COG.sub("", text)), pictures


def commands() -> Iterator[str]:
    """Yield what each command prints for --help, under its name."""
    from ov_minilm.cli import cli
    from ov_minilm.serve.command import command as serve

    yield "# Commands\n\nWhat `ov-minilm COMMAND --help` prints. `ov-minilm` alone lists the commands.\n"
    for name, command in cli.commands.items():
        shown = serve if name == "serve" else command
        context = click.Context(
            shown, info_name=f"ov-minilm {name}", max_content_width=100, terminal_width=100
        )
        yield f"## {name}\n\n```text\n{shown.get_help(context)}\n```\n"
