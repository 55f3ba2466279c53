"""Errors have a message and data, and can be sent to another process."""

import pickle
from pathlib import Path

from ov_minilm import errors

ERRORS = [
    errors.ManifestInvalid(Path("m"), "reason"),
    errors.FileMismatch(Path("f"), "1 byte", "2 bytes"),
    errors.SourceRefused("no such folder"),
    errors.DeviceUnavailable("GPU", ["CPU"]),
    errors.PrecisionUnavailable("f16", "CPU", "reason"),
    errors.SelfCheckFailed("1x16 on GPU", 0.1, 0.99),
    errors.TextTooLong(3, 302, 256),
    errors.DriftTooLarge(["one limit", "another"]),
    errors.ForkedProcess(1, 2),
    errors.BadRow("texts.csv", "row", 7, "no column 'text'"),
    errors.JobRefused(Path("out"), ["other inputs"]),
]


def test_errors_can_be_pickled() -> None:
    """Every class keeps its type, message and data."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    concrete = {k for k in kinds if issubclass(k, errors.OvMiniLMError) and not k.__subclasses__()}
    assert concrete == {type(error) for error in ERRORS}

    for error in ERRORS:
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301  # bytes of this test
        assert (type(error), str(error), vars(error)) == (type(copy), str(copy), vars(copy))
        assert str(error)
