"""Options that several commands have: those of Embedder.open."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ov_minilm.errors import ManifestInvalid

C = TypeVar("C", bound=Callable[..., Any])
RUN = ("model", "threads", "memory_mb", "cache_dir", "device", "precision", "lowering")


class NamedPath(click.Path):
    """A path. An empty path, such as from an unset variable of a script, is a usage error."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the Path."""
        if not os.fspath(value):
            self.fail("the name is empty; name a file or folder, or leave the option out", param, ctx)
        return super().convert(value, param, ctx)


PATH = NamedPath(path_type=Path)
FILE = NamedPath(path_type=Path, exists=True, dir_okay=False)
FOLDER = NamedPath(path_type=Path, exists=True, file_okay=False)


class Artefact(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4, at run time too
    """A folder written by convert, or the name of the model in the package."""

    name = "folder"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the folder of the artefact; another folder is a usage error."""
        from ov_minilm.artefact.location import find_model

        try:
            PATH.convert(value, param, ctx)
            return find_model(value)
        except ManifestInvalid as error:
            self.fail(str(error), param, ctx)


ARTEFACT = Artefact()


def run_options(command: C) -> C:
    """Add the options of Embedder.open."""
    for option in (
        click.option(
            "--threads",
            type=click.IntRange(1),
            help="CPU threads. Default: OV_MINILM_THREADS, else the CPUs that this process may use.",
        ),
        click.option(
            "--memory-mb",
            type=click.IntRange(1),
            help="Approximate memory of the process, in MB; less is slower. Default: no limit, about 450.",
        ),
        click.option(
            "--lowering",
            type=click.Choice(["auto", "native", "conv"]),
            default="auto",
            show_default=True,
            help="INT8 layers run as matrix products (native) or convolutions (conv); auto: the "
            "faster one on this CPU.",
        ),
        click.option(
            "--precision",
            type=click.Choice(["auto", "f32", "bf16", "f16"]),
            default="auto",
            show_default=True,
            help="Number type of the layers that are not INT8; auto: the fastest within the drift limits.",
        ),
        click.option(
            "--device",
            default="CPU",
            show_default=True,
            help="OpenVINO device: CPU, GPU, NPU, AUTO:GPU,CPU, …",
        ),
        click.option(
            "--cache-dir",
            type=PATH,
            help="Folder for compiled models, 24 MB each, which make the next start faster. Default: none.",
        ),
        click.option(
            "--model", type=ARTEFACT, help="A folder written by convert. Default: the model in the package."
        ),
    ):
        command = option(command)
    return command
