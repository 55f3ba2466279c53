"""The tables on a terminal."""

from __future__ import annotations

import pytest
from ov_minilm.bench import terminal
from results import result


def test_tables_have_a_row_for_each_contender(capsys: pytest.CaptureFixture[str]) -> None:
    """With rates, ratios, cosine, memory and milliseconds; then who is missing and what is noisy."""
    terminal.show(result())

    out = capsys.readouterr().out
    for part in (
        "1000 (1100)",
        "4.00",
        "0.9990",
        "25.60",
        "not measured: someone/else: pip found no version",
    ):
        assert part in out
    assert "fp32, latency_ms 8" in out


def test_the_headline_is_int8_against_fp32() -> None:
    """One sentence with what matters most."""
    assert "INT8 against FP32: 4.0× on short texts, 4.0× for one text of 8 tokens" == terminal.headline(
        result()
    )


def test_no_headline_without_fp32() -> None:
    """Nothing to compare with, nothing claimed."""
    alone = result()
    del alone["contenders"]["fp32"]

    assert terminal.headline(alone) is None


def test_lines_show_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr, so that --json on stdout stays JSON."""
    with terminal.bar() as bar:
        bar.step(1, 2, "half")
        bar.say("left out: a peer")

    captured = capsys.readouterr()
    assert ("", "2/2 half\nleft out: a peer\n") == (captured.out, captured.err)
