"""Gather what the page of the playground needs: rows of a latency table, the ImageNet prior, spaces and networks.

The script of the page (`model.js`, `space.js`, `solver.js`) computes all else from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nas.accuracy import features as prior_features
from nas.accuracy.imagenet_prior import (
    JUDGED_OPS,
    OUTSIDE_FACTOR,
    UNKNOWN_STD,
    ImageNetPrior,
    load_fit,
    recipe_level_features,
    slot_places,
)
from nas.arch.encoding import NORM_EPS
from nas.arch.loading import is_published, load_spec
from nas.arch.parts import NetworkPart, Part, parts_of
from nas.arch.published import published_results
from nas.arch.skeleton import Variant
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec, BlockSpec
from nas.errors import NasError
from nas.files import read_text
from nas.latency.table import LatencyTable, space_parts

MS_UNIT = 1e-8  # milliseconds; rows are whole numbers of it, so that sums over a network are right to 1e-6
_ACTIVATIONS = {"relu": "r", "relu6": "6", "hswish": "h"}


@dataclass(frozen=True)
class Start:
    """A network from which a person can begin. `published` holds top-1 (percent) and recipe of each publication."""

    name: str
    spec: ArchSpec
    published: tuple[tuple[float, str], ...] = ()
    yours: bool = False


@dataclass(frozen=True)
class Coverage:
    """The variants of a space that a table has every row of, and that of which it lacks the fewest rows."""

    space: SearchSpace
    variants: tuple[Variant, ...]
    fullest: Variant
    known_rows: int  # of `fullest`
    all_rows: int


def cover(table: LatencyTable, spaces: Sequence[SearchSpace]) -> list[Coverage]:
    """Return what a table knows of each space. Raises NasError, with what to do, if it covers no variant of any."""
    coverages = [_cover(table, space) for space in spaces]
    if not any(coverage.variants for coverage in coverages):
        fullest = max(coverages, key=lambda coverage: coverage.known_rows / coverage.all_rows)
        names = ", ".join(space.name for space in spaces)
        raise NasError(
            f"{table.path} has all rows of no width and resolution of {names}; it has the most of "
            f"{fullest.space.name} at {fullest.fullest}: {fullest.known_rows} of {fullest.all_rows}; "
            f"{measuring_command(table, fullest)} measures the rest"
        )
    return coverages


def measuring_command(table: LatencyTable, coverage: Coverage) -> str:
    """Return the command that measures the fullest variant of a space, and the device that it must run on."""
    words = [f"python -m nas.measure --space {coverage.space.name} --widths {coverage.fullest.width:g}"]
    words.append(f"--resolutions {coverage.fullest.resolution} --table {table.path}")
    of = table.runtime
    defaults = (("--runtime", of.name, "onnxruntime"), ("--threads", of.threads, 1))
    for flag, value, default in (*defaults, ("--precision", of.precision, "float32")):
        if value != default:
            words.append(f"{flag} {value}")
    where = f" on {table.device.cpu}" if table.other_device else ""
    return f"`{' '.join(words)}`{where}"


def _cover(table: LatencyTable, space: SearchSpace) -> Coverage:
    known = {}
    for variant in space.variants:
        parts = {part.key: part for part in space_parts(space.at([variant]), table.num_classes)}
        known[variant] = (sum(not table.missing([part]) for part in parts.values()), len(parts))
    fullest = max(known, key=lambda variant: known[variant][0] / known[variant][1])
    covered = tuple(variant for variant, (rows, needed) in known.items() if rows == needed)
    return Coverage(space, covered, fullest, *known[fullest])


def published_starts() -> list[Start]:
    """Return every published network once, with the names and accuracies under which it was published."""
    same: dict[str, list[Any]] = {}
    for result in published_results():
        same.setdefault(result.spec.id, []).append(result)
    starts = []
    for results in same.values():
        names = dict.fromkeys(result.spec.name for result in results)
        published = tuple((result.top1, result.recipe) for result in results)
        starts.append(Start(" = ".join(names), results[0].spec, published))
    return sorted(starts, key=lambda start: (start.name.startswith("ofa_"), start.name, start.spec.resolution))


def own_starts(paths: Sequence[str]) -> list[Start]:
    """Return the networks of files, of folders such as a run's, and of published names.

    Of a folder every `.json` file directly in it counts that holds a spec. Raises NasError for a path that holds none.
    """
    starts = []
    for path in paths:
        folder = Path(path)
        if is_published(path) or not folder.is_dir():
            starts.append(Start(path if is_published(path) else _short(folder), load_spec(path), yours=True))
            continue
        files = [file for file in sorted(folder.glob("*.json")) if _holds_spec(file)]
        if not files:
            raise NasError(f"{path}: this folder has no spec; name a run's folder, or a spec's .json file")
        starts += [Start(_short(file), ArchSpec.load(file), yours=True) for file in files]
    return starts


def _short(path: Path) -> str:
    """Return the last folder and the name of a file, without its ending."""
    return "/".join(path.with_suffix("").parts[-2:])


def _holds_spec(path: Path) -> bool:
    try:
        data = json.loads(read_text(path))
    except ValueError:  # a NasError is one, too
        return False
    return isinstance(data, dict) and "blocks" in data and "stem" in data


def page_data(
    table: LatencyTable, coverages: Sequence[Coverage], prior: ImageNetPrior, starts: Sequence[Start]
) -> dict[str, Any]:
    """Return the data of the page as JSON values. Spaces without a covered variant are left out."""
    covered = [coverage for coverage in coverages if coverage.variants]
    smallest = [one.space.smallest(variant) for one in covered for variant in one.variants]
    known = [part for spec in smallest for part in parts_of(spec, table.num_classes)]  # with their stems and heads
    known += [part for start in starts for part in parts_of(start.spec, table.num_classes)]
    return {
        "device": table.device.cpu,
        "runtime": str(table.runtime),
        "classes": table.num_classes,
        "ms_unit": MS_UNIT,
        "prior": prior_data(prior),
        "spaces": [_space_data(table, one.space, one.variants) for one in covered],
        "rows": dict(_row_times(table, known)),
        "networks": [_start_data(table, start) for start in starts],
    }


def _row_times(table: LatencyTable, parts: Sequence[Part]) -> Iterator[tuple[str, float]]:
    for part in {part.key: part for part in parts}.values():
        if not table.missing([part]):
            yield part.key, round(table.part_ms(part), 8)


def _space_data(table: LatencyTable, space: SearchSpace, variants: Sequence[Variant]) -> dict[str, Any]:
    latency = table.compile(space.at(variants))
    assert not latency.pairs
    widths = list(space.fixed_parts)
    for variant in variants:
        slot_places(space, variant)  # raises NasError where the prior cannot tell places of blocks
    return {
        "name": space.name,
        "unknown_variants": len(space.variants) - len(variants),
        "norm_eps": NORM_EPS,
        "stages": [
            {
                "stride": stage.stride,
                "depths": stage.depths,
                "kernels": stage.kernels,
                "expansions": stage.expansions,
                "se": stage.se,
                "activations": stage.activations,
            }
            for stage in space.stages
        ],
        "slots": [slot._asdict() for slot in space.slots],
        "widths": [_width_data(space, width) for width in widths],
        "variants": [
            {
                "width_index": widths.index(variant.width),
                "resolution": variant.resolution,
                "name": str(variant),
                "ms": [np.rint(values[row] / MS_UNIT).astype(int).tolist() for values in latency.options],
            }
            for row, variant in enumerate(variants)
        ],
    }


def _width_data(space: SearchSpace, width: float) -> dict[str, Any]:
    stem, first, head = space.fixed_parts[width]
    fixed = ArchSpec(name="fixed", resolution=224, stem=stem, blocks=(first,), head=head).to_dict()
    return {
        "width": width,
        "label": f"{width:g}",
        "stem": {"stride": 2} | fixed["stem"],
        "first": {"start_kernel": 0} | fixed["blocks"][0],
        "head": {"hidden_norm": False} | fixed["head"],
        "resolutions": [variant.resolution for variant in space.variants if variant.width == width],
        "outs": [space.stage_out(stage, width) for stage in range(-1, len(space.stages))],
    }


def prior_data(prior: ImageNetPrior) -> dict[str, Any]:
    """Return what the page needs of the prior, as JSON values."""
    fit, level = load_fit(), prior.recipe_level
    recipe = [name for name, _ in recipe_level_features(level, 224)]
    return {
        "recipe": prior.training_recipe,
        "names": list(fit.index),
        "coefficients": fit.coefficients.tolist(),
        "low": fit.low.tolist(),
        "high": fit.high.tolist(),
        "factor": [row[: number + 1].tolist() for number, row in enumerate(fit.factor)],
        "limit": fit.limit,
        "noise": fit.noise[level],
        "unknown_std": UNKNOWN_STD,
        "outside_factor": OUTSIDE_FACTOR,
        "judged_ops": JUDGED_OPS,
        "curves": {
            "reference_out": prior_features.REFERENCE_OUT,
            "reference_in": prior_features.REFERENCE_IN,
            "reference_head": prior_features.REFERENCE_HEAD,
            "positions": prior_features.POSITIONS,
            "deeper_weight": prior_features.DEEPER_WEIGHT,
            "merged": prior_features.MERGED,
            "merged_expansion": prior_features.MERGED_EXPANSION,
            "main": prior_features.MAIN,
            "deep": prior_features.DEEP,
            "width_power": prior_features.WIDTH_POWER,
            "resolution_power": prior_features.RESOLUTION_POWER,
            "expansion_half": prior_features.EXPANSION_HALF,
            "recipe_features": [name for name in recipe if not name.startswith("resolution")],
            "recipe_resolution_features": [name for name in recipe if name.startswith("resolution")],
        },
    }


def _start_data(table: LatencyTable, start: Start) -> dict[str, Any]:
    network = NetworkPart(start.spec, table.num_classes)
    return {
        "name": start.name,
        "text": spec_text(start.spec),
        "published": start.published,
        "yours": start.yours,
        "measured_ms": round(table.part_ms(network), 6) if table.knows(network) else None,
    }


def spec_text(spec: ArchSpec) -> str:
    """Return a network, without its name, as a short text, which `parseSpecText` of `model.js` reads."""
    stem, head = spec.stem, spec.head
    return "~".join(
        [
            str(spec.resolution),
            repr(spec.norm_eps),
            f"{stem.out}.{stem.stride}.{_ACTIVATIONS[stem.activation]}",
            "_".join(map(_block_text, spec.blocks)),
            f"{head.conv}.{head.hidden}.{_ACTIVATIONS[head.activation]}{'n' if head.hidden_norm else ''}",
        ]
    )


def _block_text(block: BlockSpec) -> str:
    numbers = (block.kernel, block.expanded, block.out, block.stride, block.se)
    letters = _ACTIVATIONS[block.activation] + block.gate[0] + ("a" if block.activate_output else "")
    start = f".{block.start_kernel}" if block.op == "uib" else ""
    return f"{block.op[0]}{'.'.join(map(str, numbers))}.{letters}{start}"
