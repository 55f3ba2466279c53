"""Write tests/frozen/VERSION: a small artefact, vectors of a few texts, and an interrupted job.

Run once for a release whose manifest or journal has another form: python tests/frozen/freeze.py
An existing folder is never overwritten: later versions must be able to read it.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from support.checkpoints import CALIBRATION, TEXTS, Kind, write

from ov_minilm import Embedder, __version__
from ov_minilm.artefact.drift_record import Gate
from ov_minilm.artefact.manifest import file_facts
from ov_minilm.bulk import job as jobs
from ov_minilm.bulk.journal import JOURNAL_NAME
from ov_minilm.bulk.outputs import Output
from ov_minilm.bulk.pipeline import BulkOptions
from ov_minilm.bulk.reader import find
from ov_minilm.convert import source
from ov_minilm.convert.build import build
from ov_minilm.drift.evaluation import Evaluation

KIND = Kind(layers=1, width=32, heads=2, max_tokens=64)  # small enough for a repository


def main(folder: Path) -> None:
    """Convert a checkpoint with random weights, encode, and leave a job with one of its two shards done."""
    folder.mkdir()  # fails if the folder exists
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        write(KIND, work / "checkpoint")
        (work / "calibration.txt").write_text("\n".join(CALIBRATION) + "\n", encoding="utf-8")
        build(
            source.find(
                str(work / "checkpoint"), None, file_facts(work / "checkpoint" / source.WEIGHTS).sha256
            ),
            work / "out",
            calibration=work / "calibration.txt",
            evaluation=Evaluation(collections={"texts": TEXTS}),
            limits=Gate(cosine_mean=-1, overlap=0, spearman=100),  # random weights have a large drift
            say=print,
        )
        shutil.copytree(work / "out/int8", folder / "artefact")
        with Embedder.open(folder / "artefact", precision="f32") as embedder:
            np.save(folder / "vectors.npy", embedder.encode(TEXTS))
            (work / "texts.txt").write_text("one\ntwo\nthree\n", encoding="utf-8")
            output = Output.parse(str(folder / "job"))
            options = BulkOptions(rows_per_shard=2)
            jobs.run(find([str(work / "texts.txt")]), output, options, jobs.Local(embedder))
    (folder / "job/part-00001.parquet").unlink()  # as if the job had been killed while it wrote this shard
    journal = folder / "job" / JOURNAL_NAME
    lines = journal.read_text(encoding="utf-8").splitlines(keepends=True)
    first = {**json.loads(lines[0]), "input 0": "the file's place, size and time"}
    journal.write_text(json.dumps(first) + "\n" + lines[1], encoding="utf-8")


if __name__ == "__main__":
    main(Path(__file__).parent / __version__)
