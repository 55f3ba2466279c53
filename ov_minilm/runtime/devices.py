"""OpenVINO's device strings: CPU, GPU, GPU.0, NPU, AUTO:GPU,CPU, AUTO:-GPU, BATCH:CPU(4)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ov_minilm.errors import DeviceUnavailable
from ov_minilm.runtime.backend import ov

VIRTUAL_DEVICES = ("AUTO", "MULTI", "HETERO", "BATCH")


def devices(device: str) -> list[str]:
    """Return the devices that a device string names; AUTO without a list names none and may use any."""
    virtual, _, listed = device.partition(":")
    names = [device] if virtual not in VIRTUAL_DEVICES else listed.split(",") if listed else []
    # without the (4) of BATCH:CPU(4), which only virtual devices have, and the .0 of GPU.0
    ending = r"((?<!CPU)\.0)?" + r"(\([1-9]\d*\))?" * (virtual in VIRTUAL_DEVICES) + "$"
    return [re.sub(ending, "", name) for name in names]


def device_names(core: ov.Core, device: str) -> dict[str, str]:
    """Return the full names of the devices that a device string may use; without a list, of all devices."""
    names = [name for name in devices(device) if not name.startswith("-")] or core.available_devices
    return {name: str(core.get_property(name, "FULL_DEVICE_NAME")) for name in names}


def check_device(device: str, available: Sequence[str]) -> None:
    """Refuse a device string if the machine lacks one of its devices; the error lists those it has.

    Raises:
        DeviceUnavailable: for a name like GPU.1 or AUTO:NPU,CPU without the hardware for it, or a string that
            leaves no device: MULTI, AUTO:-CPU.
    """
    known = {name.removesuffix(".0") for name in available}
    # Without a list AUTO may use every device; MULTI, HETERO and BATCH need a list.
    names = devices(device) or (known if device.startswith("AUTO") else [""])
    # A device is unknown, or every device is excluded. Devices that are not there may be excluded.
    if {n for n in names if not n.startswith("-")} - known or {f"-{n}" for n in known} <= {*names}:
        raise DeviceUnavailable(device, available)


def may_use_cpu(device: str) -> bool:
    """Return whether a device string may use the CPU; AUTO may, unless its list excludes the CPU."""
    return "CPU" in (names := devices(device)) or all(n.startswith("-") and n != "-CPU" for n in names)
