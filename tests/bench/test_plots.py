"""Pictures of a result."""

from __future__ import annotations

from pathlib import Path

import pytest
from ov_minilm.bench import plots
from ov_minilm.bench.report import write_plots
from png import text_of
from results import result


@pytest.mark.parametrize("name", plots.PLOTS)
def test_every_picture_can_be_drawn(name: str) -> None:
    """From a result that has its data, as an SVG element with every contender's colour it shows."""
    figure = plots.draw(name, result())

    assert figure is not None
    assert plots.svg(figure).startswith("<svg")
    assert plots.MINE in plots.svg(figure)


@pytest.mark.parametrize("name", plots.PLOTS)
def test_no_data_no_picture(name: str) -> None:
    """An interrupted run without figures still gives a report."""
    empty = result() | {"contenders": {}}
    del empty["scatter"]

    assert plots.draw(name, empty) is None


def test_the_same_data_gives_the_same_svg() -> None:
    """A report can be compared with another byte for byte."""
    first, second = (plots.draw("latency", result()) for _ in range(2))

    assert first is not None
    assert second is not None
    assert plots.svg(first) == plots.svg(second)


def test_a_png_carries_the_digest_of_its_data(tmp_path: Path) -> None:
    """By it a test knows whether a picture is older than its figures."""
    files = write_plots(result(), tmp_path / "new/folder")

    assert [f"{name}.png" for name in plots.PLOTS] == [path.name for path in files]
    assert {plots.digest(result())} == {text_of(path)[plots.DIGEST] for path in files}
    assert plots.digest(result()) != plots.digest(result() | {"threads": 4})


def test_labels_are_kept_apart() -> None:
    """Each at most the one above divided by the factor, and all moved up by half of the last one's move."""
    assert [8.0, 4.0, 2.0, 0.5] == plots._apart([8.0, 7.0, 2.0, 0.5], factor=2.0)
    assert [16.0, 8.0, 4.0] == plots._apart([8.0, 8.0, 8.0], factor=2.0)
