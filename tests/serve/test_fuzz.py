"""Random requests to the APIs, valid and damaged; nightly runs make many more with scripts/fuzz.py."""

from collections import Counter

import pytest
from fuzzing.requests import RequestFuzzer

from ov_minilm import Embedder


@pytest.mark.filterwarnings("ignore::ov_minilm.TruncationWarning")
@pytest.mark.parametrize("cases", [1_000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_random_requests(shipped: Embedder, cases: int) -> None:
    """A valid request gets the vectors and counts of `encode`; invalid requests get an error."""
    requests = RequestFuzzer(shipped, real=False)
    try:
        outcomes = Counter(requests.run_case(seed) for seed in range(cases))
    finally:
        requests.close()

    assert {"done", "refused"} == outcomes.keys()
    assert cases / 4 < outcomes["refused"] < cases * 3 / 4
