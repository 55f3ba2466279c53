"""One page with everything: tables, pictures, and what they were measured on. Opens offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from ov_minilm.bench import plots
from ov_minilm.bench.measure import OURS, REFERENCE
from ov_minilm.bench.terminal import headline

TEMPLATE = Path(__file__).with_name("report.html")


def render(result: dict[str, Any]) -> str:
    """Return the page for a result, with nothing that is fetched from anywhere."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    figures = {name: plots.draw(name, result) for name in plots.PLOTS}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        result=result,
        headline=headline(result),
        pictures={name: plots.svg(figure) for name, figure in figures.items() if figure},
        ours=OURS,
        reference=REFERENCE,
        noisy=set(result["noisy"]),
        lengths=list(result["contenders"].get(OURS, {}).get("latency_ms", {})),
    )


def write_plots(result: dict[str, Any], folder: Path) -> list[Path]:
    """Write every picture that the result has data for as a PNG; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in plots.PLOTS:
        figure = plots.draw(name, result)
        if figure:
            plots.png(figure, folder / f"{name}.png", result)
            written.append(folder / f"{name}.png")
    return written
