"""Write names, budgets and the device of a run as readers know them."""

from __future__ import annotations

from pathlib import PurePath

from nas.runs.folder import CONTENT
from nas.runs.reading import Run
from nas.runs.record import NetworkResult

_FAMILY_NAMES = {
    "mobilenet_v1": "MobileNetV1",
    "mobilenet_v2": "MobileNetV2",
    "mobilenet_v3_large": "MobileNetV3-Large",
    "mobilenet_v3_small": "MobileNetV3-Small",
    "mnasnet_a1": "MnasNet-A1",
    "mobilenetv4_conv_small": "MobileNetV4-Conv-S",
    "mobilenetv4_conv_small_050": "MobileNetV4-Conv-S ×0.5",
    "mobilenetv4_conv_medium": "MobileNetV4-Conv-M",
}

_ONCE_FOR_ALL = "ofa_"


def display_name(run: Run, network: NetworkResult) -> str:
    """Return the name of a network: "found Large", "MobileNetV3-Large ×0.75", "OFA cpu 15ms"."""
    return found_name(run, network.target) if network.found and network.target else published_name(network.name)


def found_name(run: Run, target: str) -> str:
    """Return the name of the network that was found for a target: "found Large"."""
    return f"found {run.result(target).target.title}"


def published_name(name: str) -> str:
    """Return the name of a published network: "MobileNetV3-Large ×0.75", "OFA cpu 15ms"."""
    family, _, width = name.partition("@")
    if family in _FAMILY_NAMES:
        return _FAMILY_NAMES[family] + (f" ×{width}" if width else "")
    if family.startswith("hardcorenas_"):
        return "HardCoRe-NAS " + name.removeprefix("hardcorenas_").upper()
    if name.startswith(_ONCE_FOR_ALL):
        return "OFA " + name.removeprefix(_ONCE_FOR_ALL).replace("_lat-", " ").replace("_", " ")
    return name


def is_once_for_all(network: NetworkResult) -> bool:
    """Return whether a network is one of those that Once-for-All published."""
    return not network.found and network.name.startswith(_ONCE_FOR_ALL)


def budget_text(budget_ms: float) -> str:
    """Return a budget to hundredths of a millisecond at most: "6", "1.86", "1,000"."""
    text = f"{budget_ms:,.2f}".rstrip("0").rstrip(".")
    return text if text != "0" else f"{budget_ms:.1g}"


def images_text(run: Run) -> str:
    """Return the images that all accuracies of the run speak for: "ImageNet", "cifar10", or the name of a folder."""
    source = run.record.arguments.get("data")
    return "ImageNet" if source is None else PurePath(CONTENT.sub("", source).strip().removeprefix("imagefolder:")).name


def device_text(run: Run) -> str:
    """Return the device, runtime, threads and precision that all times of the run hold for."""
    table = run.table
    precision = "" if table.precision == "float32" else f", {table.precision}"
    predicted = " (predicted, not measured: the table is of another device)" if table.other_device else ""
    plural = "s" if table.threads != 1 else ""
    return f"{table.device}, {table.runtime}, {table.threads} thread{plural}{precision}{predicted}"


def title_of(skeleton: str) -> str:
    """Return the name of a skeleton for readers: "Large"."""
    return skeleton.capitalize()


def variant_text(width: float, resolution: int) -> str:
    """Return a variant for readers: "width 1.25 at 224 px"."""
    return f"width {width:g} at {resolution} px"


def with_uv(command: str) -> str:
    """Return a command as it is typed: through uv, which finds the environment of the project."""
    return command if command.startswith("uv run ") else f"uv run {command}"
