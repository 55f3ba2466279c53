"""Additions to click's `--help`: examples, options in groups, the most used commands first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

SYNONYMS = {"embed": "encode", "info": "show", "help": "--help", "version": "--version"}
START = """
Start:
  echo "How do I water tomatoes?" | ov-minilm encode     # one vector, as a line of JSON
  ov-minilm encode texts.txt -o vectors.npy              # a vector for each line of a file
""".strip()


class HelpfulCommand(click.Command):
    """A command whose help has examples and options in groups."""

    def __init__(
        self,
        *args: Any,
        examples: Sequence[str] = (),
        groups: Mapping[str, Sequence[str]] | None = None,
        **options: Any,
    ) -> None:
        """Create a command with a help page.

        Args:
            args: of click.Command.
            examples: command lines, shown unchanged.
            groups: title of a group -> names of its options. Options without a group come last.
            options: of click.Command.
        """
        super().__init__(*args, **options)
        self.examples = examples
        self.groups = groups or {}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, then the options, group by group."""
        if self.examples:
            with formatter.section("Examples"):
                for line in self.examples:
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")
        options = [option for option in self.get_params(ctx) if isinstance(option, click.Option)]
        records = {option.name: record for option in options if (record := option.get_help_record(ctx))}
        for title, names in self.groups.items():
            records_of_group = [records.pop(name) for name in names if name in records]
            if records_of_group:
                with formatter.section(title):
                    formatter.write_dl(records_of_group)
        if records:
            with formatter.section("Other options" if self.groups else "Options"):
                formatter.write_dl(list(records.values()))


class Commands(click.Group):
    """A group whose help shows how to start and lists the most used commands first."""

    command_class = HelpfulCommand

    def __init__(self, *args: Any, first: Sequence[str] = (), **options: Any) -> None:
        """Create a group of commands; `first` has the names of the commands to list first."""
        super().__init__(*args, **options)
        self.first = first

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments name; if it is a synonym, fail and name the command."""
        if args[0] in SYNONYMS:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {SYNONYMS[args[0]]!r}?")
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write how to start, the commands, then the options."""
        formatter.write("\n" + "\n".join(f"  {line}" for line in START.splitlines()) + "\n")
        others = [name for name in self.list_commands(ctx) if name not in self.first]
        for title, names in (("Commands", self.first), ("To make and check models", others)):
            with formatter.section(title):
                shown = [(name, self.commands[name]) for name in names if name in self.commands]
                formatter.write_dl([(name, command.get_short_help_str(72)) for name, command in shown])
        click.Command.format_options(self, ctx, formatter)
