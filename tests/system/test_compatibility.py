"""Files of earlier versions (tests/frozen) are read, or refused with a message that says what to do."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.checkpoints import TEXTS

import ov_minilm
from ov_minilm import Embedder, JobRefused

FROZEN = Path(__file__).parents[1] / "frozen"
FINGERPRINTS = {"0.1.0": "97108a3897dec23a"}
# Names of 0.1.0. To remove a name needs a new minor version before 1.0, a new major version after 1.0.
PUBLIC = """
ArtefactError BadRow CacheWarning DeviceUnavailable DriftTooLarge Embedder FileMismatch ForkedProcess Info
JobRefused ManifestInvalid OvMiniLMError PrecisionUnavailable SelfCheckFailed SourceRefused TextTooLong
TruncationWarning __version__ encode
""".split()
METHODS = """
open encode encode_iter aencode submit asubmit tokenize count_tokens similarity self_check warm_up close info
stats spec prompts truncated
""".split()


@pytest.fixture(params=FINGERPRINTS)
def version(request: pytest.FixtureRequest) -> str:
    """An earlier version; each test runs once per version."""
    return str(request.param)


@pytest.fixture
def embedder(version: str) -> Iterator[Embedder]:
    """An Embedder of the artefact that the earlier version wrote."""
    with Embedder.open(FROZEN / version / "artefact", precision="f32") as opened:
        yield opened


@pytest.mark.filterwarnings("ignore::ov_minilm.TruncationWarning")
def test_an_artefact_of_an_earlier_version_opens(version: str, embedder: Embedder) -> None:
    """The fingerprint (which users store with an index) and vectors are unchanged; public names exist."""
    assert set() == set(PUBLIC) - set(ov_minilm.__all__)
    assert set() == set(METHODS) - set(dir(embedder))
    assert FINGERPRINTS.keys() == {path.name for path in FROZEN.iterdir() if path.is_dir()}
    assert FINGERPRINTS[version] == embedder.info.fingerprint

    expected, now = np.load(FROZEN / version / "vectors.npy"), embedder.encode(TEXTS)

    assert expected.shape == now.shape
    assert 0.9999 < np.sum(expected * now, axis=1).min()  # the last bits depend on the CPU


def test_a_job_of_an_earlier_version_resumes_or_is_refused(
    version: str, embedder: Embedder, tmp_path: Path
) -> None:
    """Finished shards are kept, or the error names --overwrite, which computes all shards again."""
    pytest.importorskip("pyarrow", reason="needs the bulk extra")
    from ov_minilm.bulk import job
    from ov_minilm.bulk.journal import JOURNAL_NAME
    from ov_minilm.bulk.outputs import Output
    from ov_minilm.bulk.pipeline import BulkOptions
    from ov_minilm.bulk.reader import find

    source, frozen = tmp_path / "texts.txt", FROZEN / version / "job"
    source.write_text("one\ntwo\nthree\n", encoding="utf-8", newline="\n")

    def run_job(output: Path, *, overwrite: bool = False) -> dict[str, bytes]:
        options, engine = BulkOptions(rows_per_shard=2), job.Local(embedder)
        job.run(find([source]), Output.parse(output), options, engine, overwrite=overwrite)
        return {path.name: path.read_bytes() for path in output.glob("*.parquet")}

    expected = run_job(tmp_path / "whole")
    shutil.copytree(frozen, tmp_path / "job")
    first, *done = (frozen / JOURNAL_NAME).read_text(encoding="utf-8").splitlines()
    now = json.loads((tmp_path / "whole" / JOURNAL_NAME).read_text(encoding="utf-8").splitlines()[0])
    for fact in ("format", "form", "truncate", "dtype", "rows_per_shard", "column"):
        now.pop(fact, None)  # other fields are versions, CPU and input path, which may differ
    header = {key: now.get(key, value) for key, value in json.loads(first).items()}
    (tmp_path / "job" / JOURNAL_NAME).write_text("\n".join([json.dumps(header), *done, ""]), encoding="utf-8")
    first_shard = (tmp_path / "job/part-00000.parquet").read_bytes()

    try:
        actual = run_job(tmp_path / "job")
    except JobRefused as refused:
        assert "--overwrite" in str(refused)  # noqa: PT017  # both results are right
        actual, first_shard = run_job(tmp_path / "job", overwrite=True), expected["part-00000.parquet"]

    assert expected | {"part-00000.parquet": first_shard} == actual
