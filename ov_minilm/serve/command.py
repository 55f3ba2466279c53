"""The command `ov-minilm serve`: options and environment variables become Settings, an Embedder, a server."""

from __future__ import annotations

import difflib
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import click
from click.core import ParameterSource

from ov_minilm.artefact.location import find_model
from ov_minilm.cli_help import HelpfulCommand
from ov_minilm.cli_options import FILE, RUN, run_options
from ov_minilm.doctor import SERVER_MB
from ov_minilm.runtime import cpus
from ov_minilm.serve.settings import AccessLog, Settings, TokenIds, Truncate
from ov_minilm.serve.workers import Link, Supervisor, check_system, share_weights, split_cpus, summing_metrics

PREFIX = "OV_MINILM_"  # prefix of the environment variables, one for each option
OTHER_COMMANDS_VARIABLES = ["OV_MINILM_STSB"]  # variables that other commands read
DEFAULT = Settings()
# hosts that other machines cannot reach; addresses that begin with 127. are checked separately
LOOPBACK = ("localhost", "::1")
LogFormat = Literal["text", "json"]


class CommaSeparated(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """An option whose environment variable has several values, separated by commas."""

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        """Return the values without surrounding spaces."""
        return [value for part in rv.split(",") if (value := part.strip())]


class Texts(CommaSeparated, click.types.StringParamType):
    """Texts."""


class Ports(CommaSeparated, click.IntRange):
    """Port numbers."""


class EnvironmentCommand(HelpfulCommand):
    """A command with an environment variable for each option: OV_MINILM_PORT for --port."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the options, each with its environment variable, which --help shows."""
        found = super().get_params(ctx)
        for option in found:
            if isinstance(option, click.Option) and "--help" not in option.opts:
                longest = max(option.opts, key=len)
                option.envvar = PREFIX + longest.lstrip("-").replace("-", "_").upper()
                option.show_envvar = True
        return found


log = logging.getLogger("ov_minilm.serve")


def _default(name: str) -> dict[str, Any]:
    return {"default": getattr(DEFAULT, name), "show_default": True}


@click.command(
    "serve",
    cls=EnvironmentCommand,
    examples=(
        "ov-minilm serve",
        "ov-minilm serve --host 0.0.0.0 --port 8000 --port 11434 --api-key-file keys",
        "ov-minilm serve --workers 4 --memory-mb 1600 --access-log json",
    ),
    groups={
        "Address": ("host", "ports", "workers", "cors_origins"),
        "Keys": ("api_key", "api_key_file", "protect_health"),
        "Requests": (
            *("served_model_names", "strict_model", "truncate", "auto_truncate", "token_ids"),
            *("max_client_batch_size", "payload_limit"),
        ),
        "Load": ("max_concurrent_requests", "max_queue_seconds", "max_batch_tokens", "cache_mb"),
        "Start and stop": ("warm_up", "drain_seconds"),
        "Log and traces": ("log_level", "log_format", "access_log", "otlp_endpoint"),
        "Running the model": RUN,
    },
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on. 0.0.0.0: all networks of the machine.",
)
@click.option(
    "--port",
    "ports",
    type=Ports(0, 65535),
    multiple=True,
    default=(8000,),
    show_default=True,
    help="Port to listen on; 0: any free one. Repeatable: Ollama's clients use 11434.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Processes that share the port and the CPUs (Linux only). --threads, --memory-mb and --cache-mb are "
    "totals; limits of requests are for each process. A process that dies is replaced.",
)
@click.option(
    "--served-model-name",
    "served_model_names",
    multiple=True,
    type=Texts(),
    help="Name of the model for clients; responses have the first. Repeatable. Default: its own names.",
)
@click.option(
    "--strict-model",
    is_flag=True,
    help="Answer 404 to other model names instead of ignoring the name. Ollama's API always does so.",
)
@click.option(
    "--truncate",
    type=click.Choice(get_args(Truncate)),
    help="For texts over 256 tokens, if a request does not choose: end cuts them, error refuses them, mean "
    f"averages windows. Default: {DEFAULT.truncate}.",
)
@click.option(
    "--auto-truncate",
    type=bool,
    is_flag=False,
    flag_value=True,
    help="true means --truncate end, false means --truncate error.",
)
@click.option(
    "--token-ids",
    type=click.Choice(get_args(TokenIds)),
    **_default("token_ids"),
    help="Vocabulary of the token ids that some clients send instead of texts.",
)
@click.option(
    "--api-key",
    multiple=True,
    type=Texts(),
    help="Key that clients must send. Repeatable. Other users of this machine can see it: "
    "--api-key-file is safer.",
)
@click.option(
    "--api-key-file",
    type=FILE,
    help="File with one key on each line; read again at SIGHUP.",
)
@click.option("--protect-health", is_flag=True, help="Require the key for /health, /livez and /readyz too.")
@click.option(
    "--cors-origin",
    "cors_origins",
    multiple=True,
    type=Texts(),
    help="Web site whose pages may send requests. Repeatable.",
)
@click.option(
    "--max-client-batch-size",
    type=click.IntRange(1),
    **_default("max_client_batch_size"),
    help="Maximum number of texts in a request.",
)
@click.option(
    "--max-batch-tokens",
    type=click.IntRange(1),
    help="Maximum number of tokens in a batch, with padding, up to 512. With 256, short requests wait less "
    "behind long ones and memory is lower, but long requests run slower.",
)
@click.option(
    "--cache-mb",
    type=click.IntRange(1),
    help="Size of the cache of vectors in MB, for texts that are sent again; about 450 texts per MB.",
)
@click.option(
    "--max-concurrent-requests",
    type=click.IntRange(1),
    **_default("max_concurrent_requests"),
    help="Maximum number of requests in progress; further ones get status 429.",
)
@click.option(
    "--max-queue-seconds",
    type=click.FloatRange(0, min_open=True),
    **_default("max_queue_seconds"),
    help="Maximum work in the queue, in seconds at this machine's speed; further requests get status 429. "
    "Requests with over 32 texts have their own queue, eight times as long.",
)
@click.option(
    "--payload-limit",
    type=click.IntRange(1),
    **_default("payload_limit"),
    help="Maximum size of a request's body, in bytes.",
)
@click.option(
    "--drain-seconds",
    type=click.IntRange(0),
    default=30,
    show_default=True,
    help="Seconds after SIGTERM to answer the requests already received.",
)
@click.option(
    "--warm-up/--no-warm-up",
    **_default("warm_up"),
    help="Compile the model for all input shapes before the first request. --no-warm-up: shapes are compiled "
    "when needed, which delays those requests and takes less memory.",
)
@click.option(
    "--access-log",
    type=click.Choice(get_args(AccessLog)),
    **_default("access_log"),
    help="A line for each request. json: all lines of the log are JSON.",
)
@click.option(
    "--log-format",
    type=click.Choice(get_args(LogFormat)),
    default="text",
    show_default=True,
    help="Format of all lines of the log.",
)
@click.option(
    "--otlp-endpoint",
    **_default("otlp_endpoint"),
    help="Send OpenTelemetry traces to this URL, such as http://127.0.0.1:4318; needs ov-minilm[tracing].",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
)
@run_options
@click.pass_context
def command(
    context: click.Context,
    /,
    host: str,
    ports: tuple[int, ...],
    workers: int,
    truncate: Truncate | None,
    auto_truncate: bool | None,
    api_key: tuple[str, ...],
    api_key_file: Path | None,
    drain_seconds: int,
    log_format: LogFormat,
    log_level: str,
    **rest: Any,
) -> None:
    """Serve the embeddings APIs of OpenAI, Text Embeddings Inference and Ollama until SIGTERM or Ctrl-C.

    \b
        curl http://127.0.0.1:8000/v1/embeddings -H 'Content-Type: application/json' \\
             -d '{"input": "one text"}'

    http://127.0.0.1:8000/ is a page to try the server, /docs describes the API. Every option can also be set
    by an environment variable, with commas between several values; an option overrides its variable.
    """  # noqa: D301  # the backspace is meant: click keeps the lines after it
    if truncate and auto_truncate is not None:
        raise click.UsageError("--truncate and --auto-truncate set the same thing; pass one of them")
    if auto_truncate is not None:
        truncate = "end" if auto_truncate else "error"
    if api_key_file and context.get_parameter_source("api_key") is ParameterSource.ENVIRONMENT:
        api_key = ()
    known_fields = {field.name for field in fields(Settings)}
    chosen = Settings(
        truncate=truncate or DEFAULT.truncate,
        api_keys=_keys(api_key, api_key_file),
        **{name: value for name, value in rest.items() if name in known_fields},
    )
    opening = {name: value for name, value in rest.items() if name not in known_fields}
    memory_mb = opening["memory_mb"]
    for name, server_mb in (("memory_mb", SERVER_MB), ("cache_mb", 0)):
        if opening[name] is not None:
            opening[name] = max(1, opening[name] // workers - server_mb)
    with ExitStack() as stack:
        if workers > 1:
            check_system()
            cpu_sets = split_cpus(workers, cpus.threads(opening["threads"]))
            stack.enter_context(summing_metrics())
        from ov_minilm.errors import OvMiniLMError, TruncationWarning
        from ov_minilm.runtime.embedder import Embedder
        from ov_minilm.serve.access import configure_logging
        from ov_minilm.serve.app import application
        from ov_minilm.serve.server import Server, ServerOptions, configuration, listen, serve
        from ov_minilm.serve.service import Service
        from ov_minilm.serve.worker import WorkerServer

        as_json = "json" in (log_format, chosen.access_log)
        configure_logging(log_level.upper(), as_json=as_json, stream=sys.stderr)
        # responses and metrics have the number of cut texts
        warnings.simplefilter("ignore", TruncationWarning)
        _warn_of_unknown_variables(context)
        if not chosen.api_keys and host not in LOOPBACK and not host.startswith("127."):
            log.warning("no API key is set: everybody who can reach %s can use this server", host)
        listeners = [stack.enter_context(listen(host, port)) for port in ports]
        reload_keys = (lambda: _keys(api_key, api_key_file)) if api_key_file else None

        def work(link: Link | None = None) -> None:
            try:
                embedder = Embedder.open(**opening)
            except ValueError as error:
                if memory_mb is None:
                    raise
                own = (
                    f"--memory-mb {memory_mb}: each server process needs {SERVER_MB} of this; for the model: "
                )
                raise click.UsageError(own + str(error)) from error
            with embedder:
                # a wrong endpoint gives a clear message here, and a traceback inside the server
                embedder.self_check()
                service = Service(embedder, chosen, link.all_ready if link else lambda: True)
                config = configuration(application(service), drain_seconds)
                options = ServerOptions(config, service, listeners, reload_keys)
                if not serve(WorkerServer(options, link) if link else Server(options)):
                    raise click.ClickException("the server did not start")

        if workers == 1:
            work()
            return

        def run_worker(link: Link) -> None:
            try:
                work(link)
            except (OvMiniLMError, ValueError, OSError, click.ClickException) as error:
                log.error("worker %d: %s", link.number + 1, error)
                sys.exit(2)

        def take_keys() -> bool:
            """Check the file before the workers read it. Workers that start later get these keys."""
            nonlocal chosen
            try:
                chosen = replace(chosen, api_keys=_keys(api_key, api_key_file))
            except (OSError, ValueError, click.UsageError) as error:
                log.error("SIGHUP: the old keys stay valid: %s", error)
                return False
            return True

        opening["threads"] = cpus.threads(opening["threads"]) // workers
        share_weights(find_model(opening["model"]))
        supervisor = Supervisor(cpu_sets, run_worker, listeners, take_keys if reload_keys else None)
        if code := supervisor.run():
            sys.exit(code)


def _warn_of_unknown_variables(context: click.Context) -> None:
    """Warn of environment variables OV_MINILM_* that are not options."""
    known_fields = [str(option.envvar) for option in context.command.get_params(context) if option.envvar]
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in known_fields + OTHER_COMMANDS_VARIABLES:
            similar = difflib.get_close_matches(name, known_fields, 1)
            meant = f"; did you mean {similar[0]}?" if similar else "; --help lists the valid ones"
            log.warning("the environment variable %s has no effect%s", name, meant)


def _keys(keys: tuple[str, ...], file: Path | None) -> tuple[str, ...]:
    if file is not None:
        keys += tuple(filter(None, map(str.strip, file.read_text(encoding="utf-8").splitlines())))
        if not keys:
            raise click.UsageError(f"{file} has no key; for a server without keys, omit --api-key-file")
    return keys
