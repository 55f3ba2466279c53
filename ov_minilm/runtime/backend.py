"""OpenVINO, imported in silence: a plain `import openvino` reports itself to an analytics service.

Everything here imports `ov` and `ops` from this file. While openvino is imported its telemetry package
counts as not installed, and openvino then takes the stub that it has for that case.
"""

from __future__ import annotations

import sys
from types import ModuleType

_TELEMETRY = "openvino_telemetry"
_loaded: ModuleType | None = sys.modules.get(_TELEMETRY)
sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # Python's own way to say: not to be found
try:
    import openvino as ov
    from openvino import opset13 as ops
finally:
    del sys.modules[_TELEMETRY]
    if _loaded is not None:
        sys.modules[_TELEMETRY] = _loaded

__all__ = ["ops", "ov"]
