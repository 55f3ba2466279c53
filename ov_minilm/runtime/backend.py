"""OpenVINO without its telemetry: a plain `import openvino` sends a message to an analytics service.

Other modules of the package import `ov` and `ops` from this file only. While openvino is imported, its
telemetry package is hidden, so openvino uses its built-in stub instead.
"""

from __future__ import annotations

import sys
from types import ModuleType

_TELEMETRY = "openvino_telemetry"
_loaded: ModuleType | None = sys.modules.get(_TELEMETRY)
sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # makes its import fail
try:
    import openvino as ov
    from openvino import opset13 as ops
finally:
    del sys.modules[_TELEMETRY]
    if _loaded is not None:
        sys.modules[_TELEMETRY] = _loaded

__all__ = ["ops", "ov"]
