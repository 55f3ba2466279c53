"""Random files of all formats, damaged ones too: csv, json and pyarrow say what must come of each."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzzing.files import run_case


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # pipes stay open to the end
@pytest.mark.filterwarnings("ignore:none of the first")
@pytest.mark.parametrize("first", range(0, 400, 50))
def test_each_file_is_read_right_or_refused(tmp_path: Path, first: int) -> None:
    """Exactly the rows that an independent reader sees, each bad one named, or an error before any output."""
    ended = {run_case(seed, tmp_path / "case") for seed in range(first, first + 50)}

    assert {"done", "refused"} == ended
