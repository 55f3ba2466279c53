"""OpenVINO's device strings: CPU, GPU, GPU.0, NPU, AUTO:GPU,CPU, AUTO:-GPU, BATCH:CPU(4)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ov_minilm.errors import DeviceUnavailable
from ov_minilm.runtime.backend import ov

VIRTUAL_DEVICES = ("AUTO", "MULTI", "HETERO", "BATCH")


def devices(device: str) -> dict[str, bool]:
    """Return the devices that a device string names: True to use one, False to exclude it (AUTO:-GPU).

    AUTO without a list names no device, and may use any. A device that is named and excluded counts as named.
    """
    virtual, _, listed = device.partition(":")
    names = [device] if virtual not in VIRTUAL_DEVICES else listed.split(",") if listed else []
    # without the (4) of BATCH:CPU(4), which only virtual devices have, and the .0 of GPU.0
    ending = r"((?<!CPU)\.0)?" + r"(\([1-9]\d*\))?" * (virtual in VIRTUAL_DEVICES) + "$"
    # sorted, so that GPU comes after -GPU and decides
    return {re.sub(ending, "", name.removeprefix("-")): not name.startswith("-") for name in sorted(names)}


def device_names(core: ov.Core, device: str) -> dict[str, str]:
    """Return the full names of the devices that a device string may use; without a list, of all devices."""
    names = [name for name, used in devices(device).items() if used] or core.available_devices
    return {name: str(core.get_property(name, "FULL_DEVICE_NAME")) for name in names}


def check_device(device: str, available: Sequence[str]) -> None:
    """Refuse a device string if the machine lacks one of its devices; the error lists those it has.

    Raises:
        DeviceUnavailable: for a name like GPU.1 or AUTO:NPU,CPU without the hardware for it, or a string that
            leaves no device: MULTI, AUTO:-CPU.
    """
    known = {name.removesuffix(".0") for name in available}
    # Without a list AUTO may use every device; MULTI, HETERO and BATCH need a list.
    names = devices(device) or dict.fromkeys(known if device.startswith("AUTO") else [""], True)
    # A device is unknown, or every device is excluded. Devices that do not exist may be excluded.
    if {n for n in names if names[n]} - known or known <= {n for n in names if not names[n]}:
        raise DeviceUnavailable(device, available)


def may_use_cpu(device: str) -> bool:
    """Return whether a device string may use the CPU; AUTO may, unless its list excludes the CPU."""
    return (names := devices(device)).get("CPU", not any(names.values()))
