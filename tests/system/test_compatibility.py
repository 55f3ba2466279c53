"""What earlier versions wrote is read, or refused with the way out. tests/frozen holds what they wrote."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.checkpoints import TEXTS

import ov_minilm
from ov_minilm import Embedder, JobRefused

FROZEN = sorted(path for path in (Path(__file__).parents[1] / "frozen").iterdir() if path.is_dir())
FINGERPRINTS = {"0.1.0": "97108a3897dec23a"}
# Of 0.1.0. Names may be added; one that goes needs a new minor version before 1.0, a major one after it.
PUBLIC = """
ArtefactError BadRow CacheWarning DeviceUnavailable DriftTooLarge Embedder FileMismatch ForkedProcess Info
JobRefused ManifestInvalid OvMiniLMError PrecisionUnavailable SelfCheckFailed SourceRefused TextTooLong
TruncationWarning __version__ encode
""".split()
OF_EMBEDDER = """
open encode encode_iter aencode submit asubmit tokenize count_tokens similarity self_check warm_up close info
stats spec prompts truncated
""".split()


@pytest.fixture(params=FROZEN, ids=lambda path: path.name)
def frozen(request: pytest.FixtureRequest) -> Path:
    """A folder of what one earlier version wrote."""
    folder: Path = request.param
    return folder


@pytest.fixture
def embedder(frozen: Path) -> Iterator[Embedder]:
    """The artefact of that version."""
    with Embedder.open(frozen / "artefact", precision="f32") as opened:
        yield opened


@pytest.mark.filterwarnings("ignore::ov_minilm.TruncationWarning")
def test_an_artefact_of_an_earlier_version_opens(frozen: Path, embedder: Embedder) -> None:
    """Names are there, the fingerprint that a user stored beside an index, and vectors as they were."""
    assert set() == set(PUBLIC) - set(ov_minilm.__all__)
    assert set() == set(OF_EMBEDDER) - set(dir(embedder))
    assert FINGERPRINTS.keys() == {path.name for path in FROZEN}
    assert FINGERPRINTS[frozen.name] == embedder.info.fingerprint

    before, now = np.load(frozen / "vectors.npy"), embedder.encode(TEXTS)

    assert before.shape == now.shape
    assert 0.9999 < np.sum(before * now, axis=1).min()  # the last bits may be another CPU's


def test_a_job_of_an_earlier_version_goes_on_or_is_refused(
    frozen: Path, embedder: Embedder, tmp_path: Path
) -> None:
    """With shards done, either the rest is done, or the message says --overwrite, which does it all."""
    pytest.importorskip("pyarrow", reason="needs the bulk extra")
    from ov_minilm.bulk import job as jobs
    from ov_minilm.bulk.journal import NAME
    from ov_minilm.bulk.outputs import Output
    from ov_minilm.bulk.pipeline import BulkOptions
    from ov_minilm.bulk.reader import find

    (tmp_path / "texts.txt").write_text("one\ntwo\nthree\n", encoding="utf-8", newline="\n")

    def work(output: str, *, overwrite: bool = False) -> dict[str, bytes]:
        jobs.run(
            find([str(tmp_path / "texts.txt")]),
            Output.parse(str(tmp_path / output)),
            BulkOptions(rows_per_shard=2),
            jobs.Local(embedder),
            overwrite=overwrite,
        )
        return {path.name: path.read_bytes() for path in (tmp_path / output).glob("*.parquet")}

    expected = work("whole")
    shutil.copytree(frozen / "job", tmp_path / "job")
    first, *done = (frozen / "job" / NAME).read_text(encoding="utf-8").splitlines()
    now = json.loads((tmp_path / "whole" / NAME).read_text(encoding="utf-8").splitlines()[0])
    for fact in ("format", "form", "truncate", "dtype", "rows_per_shard", "column"):
        now.pop(fact, None)  # what is left are the versions, the CPU and the place of the input of today
    facts = {key: now.get(key, value) for key, value in json.loads(first).items()}
    (tmp_path / "job" / NAME).write_text("\n".join([json.dumps(facts), *done, ""]), encoding="utf-8")
    kept = (tmp_path / "job/part-00000.parquet").read_bytes()

    refusal = "--overwrite"
    try:
        found = work("job")
    except JobRefused as refused:
        refusal = str(refused)
        found, kept = work("job", overwrite=True), expected["part-00000.parquet"]

    assert "--overwrite" in refusal
    assert expected | {"part-00000.parquet": kept} == found  # a shard that was done is not done again
