"""Switches off the telemetry of conversion tools, and hides their output unless they fail."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from collections.abc import Iterator


def no_telemetry() -> None:
    """Switch off the telemetry of nncf and the hub; call it before their import (openvino: backend.py)."""
    os.environ["NNCF_CI"] = "1"  # nncf then uses a stub instead of its telemetry
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Hide the output of the tools; show it if they fail."""
    os.environ["TQDM_DISABLE"] = "1"
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    logging.getLogger("nncf").setLevel(logging.ERROR)
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            yield
    except Exception:
        sys.stderr.write(output.getvalue())
        raise
