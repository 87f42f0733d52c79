"""Say networks of two published benchmarks as specs, and check their sizes against a table of the benchmark.

    python benchmarks/macro_specs.py --nas-bench-macro FILE.csv --channel-bench-macro FILE.csv

NAS-Bench-Macro (arXiv 2103.11922) and Channel-Bench-Macro (its repository cites arXiv 2105.10533) trained every
network of a space on CIFAR-10: 32 px, 10 classes. A FILE.csv has the columns `arch` (the digits of a network), `params`
and `flops` (multiply-accumulates); other columns are not read. The command prints how many rows have the parameters and
the multiply-accumulates of `nas.count_cost`, and the first rows that differ. It takes a few seconds.

What is counted is the same on both sides: batch norm as two parameters a channel, the bias of the linear layer alone,
and no multiply-accumulates of batch norm, activations or pooling.

Neither space is a `nas.SearchSpace`. A skeleton begins with a fixed sepconv, and chooses kernel and expansion one by
one. NAS-Bench-Macro begins with a choice and ties kernel to expansion. Channel-Bench-Macro chooses channels only.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

from nas.arch.cost import count_cost
from nas.arch.spec import ArchSpec, BlockSpec, HeadSpec, StemSpec
from nas.errors import NasError
from nas.files import read_text

NUM_CLASSES = 10  # CIFAR-10's
RESOLUTION, NORM_EPS = 32, 1e-5

# NAS-Bench-Macro: output channels and layers of each stage; kernel and expansion of each digit but 0, the identity.
MACRO_STAGES = ((64, 2), (128, 3), (256, 3))
MACRO_BLOCKS = {"1": (3, 3), "2": (5, 6)}
# Channel-Bench-Macro: the channels that one step of each digit stands for, a quarter of the largest.
CHANNEL_STEPS = (32, 192, 192, 192, 64, 384, 256)
SHOWN = 3  # rows that differ


class Disagreement(NamedTuple):
    """A row whose network has other sizes as a spec: those of the spec less those of the row."""

    digits: str
    params: int
    macs: int


class Check(NamedTuple):
    """The rows of a table: how many agree, and those that do not, or are no spec."""

    agreeing: int
    disagreeing: tuple[Disagreement, ...]
    no_spec: int


def nas_bench_macro_spec(digits: str) -> ArchSpec | None:
    """Return the network of eight digits 0, 1 and 2, one a layer, or None if no spec can say it.

    An identity that keeps the shape is left out. One at the beginning of a stage (digits 1, 3 and 6) is a strided 1x1
    convolution with batch norm, which no block is. Raises NasError for other digits.
    """
    _check_digits(digits, sum(layers for _, layers in MACRO_STAGES), "012")
    blocks: list[BlockSpec] = []
    remaining, channels = iter(digits), 32
    for out, layers in MACRO_STAGES:
        for position in range(layers):
            digit = next(remaining)
            if digit == "0":
                if not position:
                    return None
                continue
            kernel, expansion = MACRO_BLOCKS[digit]
            stride = 1 if position else 2
            blocks.append(BlockSpec(kernel=kernel, expanded=expansion * channels, out=out, stride=stride))
            channels = out
    return ArchSpec(
        name=f"nas_bench_macro_{digits}",
        resolution=RESOLUTION,
        stem=StemSpec(out=32, activation="relu", stride=1),
        blocks=tuple(blocks),
        head=HeadSpec(conv=1280, activation="relu"),
        norm_eps=NORM_EPS,
    )


def channel_bench_macro_spec(digits: str) -> ArchSpec:
    """Return the network of seven digits 1 to 4, each a number of quarters of the largest width.

    In order: bottleneck of the stem and the first two blocks, expansions of the first three, bottleneck and expansion
    of the last, last convolution. Raises NasError for other digits.
    """
    _check_digits(digits, len(CHANNEL_STEPS), "1234")
    first, *expanded, last, last_expanded, conv = (
        int(digit) * step for digit, step in zip(digits, CHANNEL_STEPS, strict=True)
    )
    expansions, outs, strides = (*expanded, last_expanded), (first, first, last, last), (1, 1, 2, 1)
    return ArchSpec(
        name=f"channel_bench_macro_{digits}",
        resolution=RESOLUTION,
        stem=StemSpec(out=first, activation="relu"),
        blocks=tuple(
            BlockSpec(kernel=3, expanded=expansion, out=out, stride=stride)
            for expansion, out, stride in zip(expansions, outs, strides, strict=True)
        ),
        head=HeadSpec(conv=conv, activation="relu"),
        norm_eps=NORM_EPS,
    )


def _check_digits(digits: str, length: int, known: str) -> None:
    if len(digits) != length or set(digits) - set(known):
        raise NasError(f"arch is {digits!r}; it must be {length} digits {known[0]} to {known[-1]}")


def check(path: str, spec_of: Callable[[str], ArchSpec | None]) -> Check:
    """Return how the rows of a table agree with the costs of their specs.

    Raises NasError for a file that is no such table, with the place of the first error.
    """
    agreeing, no_spec = 0, 0
    disagreeing = []
    for digits, params, macs in _rows(path):
        try:
            spec = spec_of(digits)
        except NasError as error:
            raise NasError(f"{path}: {error}") from None
        if spec is None:
            no_spec += 1
            continue
        cost = count_cost(spec, NUM_CLASSES)
        if (cost.params, cost.macs) == (params, macs):
            agreeing += 1
        else:
            disagreeing.append(Disagreement(digits, cost.params - params, cost.macs - macs))
    return Check(agreeing, tuple(disagreeing), no_spec)


def _rows(path: str) -> Iterator[tuple[str, int, int]]:
    """Yield digits, parameters and multiply-accumulates of each row."""
    reader = csv.DictReader(read_text(path).splitlines())
    for column in ("arch", "params", "flops"):
        if column not in (reader.fieldnames or ()):
            raise NasError(f"{path}: there is no column {column!r}; there must be arch, params and flops")
    for number, row in enumerate(reader, start=2):
        try:
            yield row["arch"], int(row["params"]), int(row["flops"])
        except (TypeError, ValueError):
            raise NasError(f"{path}: line {number}: params and flops must be whole numbers") from None


BENCHMARKS: dict[str, Callable[[str], ArchSpec | None]] = {
    "nas-bench-macro": nas_bench_macro_spec,
    "channel-bench-macro": channel_bench_macro_spec,
}


def main(argv: list[str] | None = None) -> None:
    """Check the tables that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in BENCHMARKS:
        parser.add_argument(f"--{name}", metavar="FILE.csv", help=f"rows of {name}: arch, params, flops")
    given = {name: path for name, path in zip(BENCHMARKS, vars(parser.parse_args(argv)).values(), strict=True) if path}
    if not given:
        parser.error("name a table with --nas-bench-macro or --channel-bench-macro")
    for name, path in given.items():
        found = check(path, BENCHMARKS[name])
        specs = found.agreeing + len(found.disagreeing)
        text = f"{name}: {found.agreeing:,} of {specs:,} networks agree in parameters and MACs"
        print(text + (f"; {found.no_spec:,} more rows are no spec" if found.no_spec else ""))
        for row in found.disagreeing[:SHOWN]:
            print(f"  {row.digits}: the spec has {row.params:+,} parameters and {row.macs:+,} MACs")


if __name__ == "__main__":
    try:
        main()
    except NasError as error:
        print(f"macro_specs.py: error: {error}", file=sys.stderr)
        sys.exit(2)
