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
from ov_minilm.cli_help import RUN, HelpfulCommand
from ov_minilm.doctor import SERVER_MB
from ov_minilm.runtime import cpus
from ov_minilm.serve.settings import AccessLog, Settings, TokenIds, Truncate
from ov_minilm.serve.workers import Link, Supervisor, check_system, share_weights, split_cpus, summing_metrics

PREFIX = "OV_MINILM_"  # of the environment variables, one for each option
OF_OTHER_COMMANDS = ["OV_MINILM_STSB"]  # that are no options of serve
DEFAULT = Settings()
LOOPBACK = ("localhost", "::1")  # and 127.*: nobody outside this machine can connect
LogFormat = Literal["text", "json"]


class CommaSeparated(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """Values that an environment variable separates by commas."""

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        """Return the values without the blanks around them."""
        return [part for one in rv.split(",") if (part := one.strip())]


class Texts(CommaSeparated, click.types.StringParamType):
    """Texts."""


class Ports(CommaSeparated, click.IntRange):
    """Port numbers."""


class EnvironmentCommand(HelpfulCommand):
    """A command with an environment variable for each option, named as the option is."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the options, each with its variable, which --help shows."""
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
        "Start and end": ("warm_up", "drain_seconds"),
        "Log and traces": ("log_level", "log_format", "access_log", "otlp_endpoint"),
        "Running the model": RUN,
    },
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0: every network of the machine.")
@click.option(
    "--port",
    "ports",
    type=Ports(0, 65535),
    multiple=True,
    default=(8000,),
    show_default=True,
    help="0: a free one. Repeatable: clients of Ollama look for 11434.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Processes that share the port and the CPUs, on Linux; --threads, --memory-mb and --cache-mb are "
    "for all together, limits of requests for each. One that dies is started again.",
)
@click.option(
    "--served-model-name",
    "served_model_names",
    multiple=True,
    type=Texts(),
    help="What clients call the model; the first is what answers say. Repeatable. Default: its own names.",
)
@click.option(
    "--strict-model",
    is_flag=True,
    help="Refuse other model names with 404 instead of serving them. Ollama's API always refuses them.",
)
@click.option(
    "--truncate",
    type=click.Choice(get_args(Truncate)),
    help="Of texts over 256 tokens, where a request does not say: cut, refuse, or average windows. "
    f"Default: {DEFAULT.truncate}.",
)
@click.option(
    "--auto-truncate",
    type=bool,
    is_flag=False,
    flag_value=True,
    help="true is --truncate end, false is error.",
)
@click.option(
    "--token-ids",
    type=click.Choice(get_args(TokenIds)),
    **_default("token_ids"),
    help="Of which vocabulary the ids are that some clients send instead of text.",
)
@click.option(
    "--api-key", multiple=True, type=Texts(), help="Repeatable; other users of the machine see it here."
)
@click.option(
    "--api-key-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="One key a line; read again at SIGHUP.",
)
@click.option("--protect-health", is_flag=True, help="Ask for the key on /health, /livez and /readyz too.")
@click.option(
    "--cors-origin",
    "cors_origins",
    multiple=True,
    type=Texts(),
    help="A web site whose pages may ask. Repeatable.",
)
@click.option(
    "--max-client-batch-size",
    type=click.IntRange(1),
    **_default("max_client_batch_size"),
    help="Texts a request.",
)
@click.option(
    "--max-batch-tokens",
    type=click.IntRange(1),
    help="Tokens that run together, padding included, up to 512. 256: a text waits less behind long "
    "requests, which run slower, and less memory.",
)
@click.option(
    "--cache-mb",
    type=click.IntRange(1),
    help="MB for the vectors of texts that came before, which are not computed again; some 450 texts a MB.",
)
@click.option(
    "--max-concurrent-requests",
    type=click.IntRange(1),
    **_default("max_concurrent_requests"),
    help="Requests accepted and not answered; one more is told to come back (429).",
)
@click.option(
    "--max-queue-seconds",
    type=click.FloatRange(0, min_open=True),
    **_default("max_queue_seconds"),
    help="Likewise, when so much work waits, as fast as this machine is; eight times as much of requests "
    "of over 32 texts.",
)
@click.option(
    "--payload-limit",
    type=click.IntRange(1),
    **_default("payload_limit"),
    help="Bytes of a body, which bounds a text too.",
)
@click.option(
    "--drain-seconds",
    type=click.IntRange(0),
    default=30,
    show_default=True,
    help="After SIGTERM, for what was accepted to be answered.",
)
@click.option(
    "--warm-up/--no-warm-up",
    **_default("warm_up"),
    help="Compile everything before the first request, so that none waits for it. Without: less memory.",
)
@click.option(
    "--access-log",
    type=click.Choice(get_args(AccessLog)),
    **_default("access_log"),
    help="A line for each request; json makes all lines JSON.",
)
@click.option(
    "--log-format",
    type=click.Choice(get_args(LogFormat)),
    default="text",
    show_default=True,
    help="Of all lines.",
)
@click.option(
    "--otlp-endpoint",
    **_default("otlp_endpoint"),
    help="Send OpenTelemetry traces there, as in http://127.0.0.1:4318; needs ov-minilm[tracing].",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
)
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

    http://127.0.0.1:8000/ is a page to try it, /docs describes it. Every option has an environment
    variable too, lists with commas; options win.
    """  # noqa: D301  # the backspace is meant: click keeps the lines after it
    if truncate and auto_truncate is not None:
        raise click.UsageError("--truncate and --auto-truncate say the same thing; pass one")
    if auto_truncate is not None:
        truncate = "end" if auto_truncate else "error"
    if api_key_file and context.get_parameter_source("api_key") is ParameterSource.ENVIRONMENT:
        api_key = ()
    known = {one.name for one in fields(Settings)}
    chosen = Settings(
        truncate=truncate or DEFAULT.truncate,
        api_keys=_keys(api_key, api_key_file),
        **{name: value for name, value in rest.items() if name in known},
    )
    opening = {name: value for name, value in rest.items() if name not in known}
    memory_mb = opening["memory_mb"]
    for name, own in (("memory_mb", SERVER_MB), ("cache_mb", 0)):
        if opening[name] is not None:
            opening[name] = max(1, opening[name] // workers - own)
    with ExitStack() as stack:
        if workers > 1:
            check_system()
            cpu_sets = split_cpus(workers, cpus.threads(opening["threads"]))
            stack.enter_context(summing_metrics())
        from ov_minilm.errors import OvMiniLMError, TruncationWarning
        from ov_minilm.runtime.embedder import Embedder
        from ov_minilm.serve.access import configure_logging
        from ov_minilm.serve.app import application
        from ov_minilm.serve.server import Server, configuration, listen, serve
        from ov_minilm.serve.service import Service
        from ov_minilm.serve.worker import WorkerServer

        as_json = "json" in (log_format, chosen.access_log)
        configure_logging(log_level.upper(), as_json=as_json, stream=sys.stderr)
        warnings.simplefilter("ignore", TruncationWarning)  # every answer has the count, so have the metrics
        _warn_of_unknown_variables(context)
        if not chosen.api_keys and host not in LOOPBACK and not host.startswith("127."):
            log.warning("without --api-key everybody who can reach %s may use this server", host)
        listeners = [listen(host, port) for port in ports]
        reload_keys = (lambda: _keys(api_key, api_key_file)) if api_key_file else None

        def work(link: Link | None = None) -> None:
            try:
                embedder = Embedder.open(**opening)
            except ValueError as error:
                if memory_mb is None:
                    raise
                own = f"of {memory_mb} MB the server itself takes {SERVER_MB} in each process; of the rest: "
                raise click.UsageError(own + str(error)) from error
            with embedder:
                embedder.self_check()  # what is wrong is a clear line here, and a trace within the server
                service = Service(embedder, chosen, link.all_ready if link else lambda: True)
                config = configuration(application(service), drain_seconds)
                given = (config, service, listeners, reload_keys)
                if not serve(WorkerServer(*given, link) if link else Server(*given)):
                    raise click.ClickException("the server did not start")

        if workers == 1:
            work()
            return

        def work_linked(link: Link) -> None:
            try:
                work(link)
            except (OvMiniLMError, ValueError, OSError, click.ClickException) as error:
                log.error("worker %d: %s", link.number + 1, error)
                sys.exit(2)

        def take_keys() -> bool:
            """Check the file before the workers read it; those that start later have these keys."""
            nonlocal chosen
            try:
                chosen = replace(chosen, api_keys=_keys(api_key, api_key_file))
            except (OSError, ValueError, click.UsageError) as error:
                log.error("SIGHUP: the keys stay as they were: %s", error)
                return False
            return True

        opening["threads"] = cpus.threads(opening["threads"]) // workers
        share_weights(find_model(opening["model"]))
        supervisor = Supervisor(cpu_sets, work_linked, listeners, take_keys if reload_keys else None)
        if code := supervisor.run():
            sys.exit(code)


def _warn_of_unknown_variables(context: click.Context) -> None:
    """Name environment variables that look like options and are none: they have no effect."""
    known = [str(one.envvar) for one in context.command.get_params(context) if one.envvar]
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in known + OF_OTHER_COMMANDS:
            near = difflib.get_close_matches(name, known, 1)
            meant = f"; did you mean {near[0]}?" if near else "; --help lists those that have"
            log.warning("the environment variable %s has no effect%s", name, meant)


def _keys(given: tuple[str, ...], file: Path | None) -> tuple[str, ...]:
    if file is not None:
        given += tuple(filter(None, map(str.strip, file.read_text(encoding="utf-8").splitlines())))
        if not given:
            raise click.UsageError(f"{file}: no key in it; an open server is one without --api-key-file")
    return given
