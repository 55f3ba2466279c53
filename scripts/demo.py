"""Shows in a few seconds what the package does: similarities, speed, latency, and the kernels in use."""

import time

import click
import numpy as np

from ov_minilm import Embedder

SENTENCES = [
    "A man is playing the guitar on a small stage.",
    "Someone plays music in front of an audience.",
    "The central bank left interest rates unchanged.",
    "Borrowing money will not become cheaper this month.",
    "How do I water tomatoes in a hot summer?",
    "Tomato plants need deep watering early in the morning.",
]
ROUNDS = 300  # copies of the six sentences, made different by a number


def main() -> None:
    """Print each part under its title."""
    with Embedder.open() as embedder:
        vectors = embedder.encode(SENTENCES)
        click.secho(f"similarity of {len(SENTENCES)} sentences", bold=True)
        for sentence, row in zip(SENTENCES, embedder.similarity(vectors, vectors), strict=True):
            click.echo(f"  {sentence:<56}" + "".join(f"{cosine:6.2f}" for cosine in row))

        many = [f"{n}. {sentence}" for n in range(ROUNDS) for sentence in SENTENCES]
        embedder.encode(many[:200])  # compiles the grids
        rates = []
        for _ in range(5):
            started = time.perf_counter()
            embedder.encode(many)
            rates.append(len(many) / (time.perf_counter() - started))
        times = []
        for n in range(300):
            started = time.perf_counter()
            embedder.encode(f"{n}. {SENTENCES[0]}")
            times.append(1000 * (time.perf_counter() - started))
        tokens = np.mean(embedder.count_tokens(many))

        click.secho("speed here", bold=True)
        click.echo(f"  {np.median(rates):.0f} texts/s of {tokens:.0f} tokens (median of {len(rates)} rounds)")
        click.echo(
            f"  one text: {np.percentile(times, 50):.2f} ms (p50), {np.percentile(times, 95):.2f} ms (p95)"
        )
        click.secho("what ran", bold=True)
        for name, value in embedder.info.as_dict().items():
            text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
            click.echo(f"  {name:<12} {' '.join(text) if isinstance(text, tuple) else text}")


if __name__ == "__main__":
    main()
