"""Random files of all formats, damaged ones too, compared with the readers csv, json and pyarrow."""

from pathlib import Path

import pytest
from fuzzing.files import run_case


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # about open pipes
@pytest.mark.filterwarnings("ignore:none of the first")
@pytest.mark.parametrize("first", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(50, 400, 50))])
def test_a_file_is_read_correctly_or_refused(tmp_path: Path, first: int) -> None:
    """A job writes the rows of another reader and lists bad rows, or it fails without an output."""
    ended = {run_case(seed, tmp_path / "case") for seed in range(first, first + 50)}

    assert {"done", "refused"} == ended
