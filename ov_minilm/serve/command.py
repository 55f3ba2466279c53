"""The command `ov-minilm serve`: options become Settings and an Embedder, which become a server."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import click

from ov_minilm.serve.settings import AccessLog, Settings, TokenIds, Truncate

KEYS_VARIABLE = "OV_MINILM_API_KEY"
DEFAULT = Settings()


def _default(name: str) -> dict[str, Any]:
    return {"default": getattr(DEFAULT, name), "show_default": True}


@click.command("serve", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0: every network of the machine.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: a free one.")
@click.option(
    "--served-model-name",
    "served_model_names",
    multiple=True,
    help="What clients call the model; the first is what answers say. Repeatable. Default: its own names.",
)
@click.option(
    "--strict-model", is_flag=True, help="Refuse other model names with 404 instead of serving them."
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
@click.option("--api-key", multiple=True, help="Repeatable; other users of the machine see it.")
@click.option(
    "--api-key-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help=f"One key a line. Without either, keys come from {KEYS_VARIABLE}, separated by commas.",
)
@click.option("--protect-health", is_flag=True, help="Ask for the key on /health, /livez and /readyz too.")
@click.option(
    "--cors-origin", "cors_origins", multiple=True, help="A web site whose pages may ask. Repeatable."
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
@click.option("--payload-limit", type=click.IntRange(1), **_default("payload_limit"), help="Bytes of a body.")
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
@click.option("--access-log", type=click.Choice(get_args(AccessLog)), **_default("access_log"))
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
def command(
    host: str,
    port: int,
    truncate: Truncate | None,
    auto_truncate: bool | None,
    api_key: tuple[str, ...],
    api_key_file: Path | None,
    drain_seconds: int,
    log_level: str,
    **rest: Any,
) -> None:
    """Serve OpenAI's embeddings API until SIGTERM or Ctrl-C.

    \b
        curl http://127.0.0.1:8000/v1/embeddings -H 'Content-Type: application/json' \\
             -d '{"input": "one text"}'

    http://127.0.0.1:8000/ is a page to try it, /docs describes it.
    """  # noqa: D301  # the backspace is meant: click keeps the lines after it
    if truncate and auto_truncate is not None:
        raise click.UsageError("--truncate and --auto-truncate say the same thing; pass one")
    if auto_truncate is not None:
        truncate = "end" if auto_truncate else "error"
    known = {one.name for one in fields(Settings)}
    chosen = Settings(
        truncate=truncate or DEFAULT.truncate,
        api_keys=_keys(api_key, api_key_file),
        **{name: value for name, value in rest.items() if name in known},
    )
    from ov_minilm.errors import TruncationWarning
    from ov_minilm.runtime.embedder import Embedder
    from ov_minilm.serve.app import application
    from ov_minilm.serve.server import listen, serve
    from ov_minilm.serve.service import Service

    logging.basicConfig(
        level=log_level.upper(),
        format="%(message)s" if chosen.access_log == "json" else "%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("uvicorn").setLevel(max(logging.WARNING, logging.getLogger().level))
    warnings.simplefilter("ignore", TruncationWarning)  # every answer has the count, and so have the metrics
    listener = listen(host, port)
    with Embedder.open(**{name: value for name, value in rest.items() if name not in known}) as embedder:
        embedder.self_check()  # what is wrong is a clear line here, and a trace within the server
        service = Service(embedder, chosen)
        if not serve(application(service), service, listener, drain_seconds):
            raise click.ClickException("the server did not start")


def _keys(given: tuple[str, ...], file: Path | None) -> tuple[str, ...]:
    if file is not None:
        given += tuple(filter(None, map(str.strip, file.read_text(encoding="utf-8").splitlines())))
        if not given:
            raise click.UsageError(f"{file}: no key in it; an open server is one without --api-key-file")
    if not given and (variable := os.environ.get(KEYS_VARIABLE)):
        given = tuple(key.strip() for key in variable.split(","))
    return given
