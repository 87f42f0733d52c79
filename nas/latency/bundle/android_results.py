"""Read what the script of an Android bundle has written, and make a latency table of it.

The file begins with the index of the bundle, a line of JSON. Then come lines of words with tabs between them:

    fact   NAME TEXT               what the phone says of itself, a line of /proc/cpuinfo for example
    begin  BUNDLE PHONE PROGRAM MASK       each start of the script
    visit  NUMBER TEXT             what benchmark_model printed of a network's runs; 0: the reference network once more
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nas.errors import NasError
from nas.files import read_text
from nas.latency.bundle.android_writing import FORMAT, RUNTIME, SCRIPT, id_of
from nas.latency.device import Device
from nas.latency.drift import weighted_quantiles
from nas.latency.table import LatencyTable, default_path
from nas.latency.table_file import Row, RuntimeId, WholeNetwork
from nas.latency.timing import Timing, error_of_median

NEW = "measure again into a new file (--results)"
STARTS = ("bundle", "phone", "benchmark_model", "mask of cores")  # the words of a start, which all starts share
SLOWED = 1.3  # times as long takes the reference network in its slow visits as in its fast ones, before it is said
_SPREAD = re.compile(
    r"count=(?P<count>\d+) first=\d+ curr=\d+ min=\d+ max=(?P<max>\d+) avg=(?P<avg>[\d.e+]+) std=\d+.*"
)
_ALL_SAME = re.compile(r"count=(?P<count>\d+) curr=(?P<avg>\d+)(\(all same\))?.*")


class Visit(NamedTuple):
    """One call of benchmark_model. Visits of one `start` of the script and one session are compared with each other."""

    start: int
    session: int
    network: int  # 0 is the reference network
    microseconds: float


@dataclass
class AndroidResults:
    """The results of a bundle on a phone. `facts` are texts by their names, several lines of one with breaks."""

    path: Path
    index: Mapping[str, Any]
    starts: list[list[str]] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    visits: list[Visit] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)  # of the plan's visits that are there, as they come

    @classmethod
    def read(cls, path: str | Path) -> AndroidResults:
        """Read results that are complete.

        Raises NasError for a file that is none or damaged, of several bundles, phones, programs or cores, or cut short.
        """
        head, *lines = read_text(path).split("\n")
        results = cls(Path(path), _index(path, head))
        # What stands behind the last break was cut, or is nothing.
        for number, line in enumerate(lines[:-1], 2):
            try:
                results._take(*line.split("\t", 2 if line.startswith("fact") else -1))
            except (TypeError, ValueError, LookupError):
                raise NasError(f"{path}: line {number} is damaged ({line[:60]!r}); {NEW}") from None
        results._check()
        return results

    def _take(self, kind: str, *words: str) -> None:
        if kind == "begin":
            bundle, phone, program, mask = words
            self.starts.append([bundle, phone, program, mask])
        elif kind == "fact":
            name, text = words
            self.facts[name] = f"{self.facts[name]}\n{text}" if name in self.facts else text
        elif kind == "visit" and self.starts and words[0].isdecimal():
            number, text = int(words[0]), words[1]
            last = next((visit.session for visit in reversed(self.visits)), 0)
            session, network = self.index["plan"][number - 1] if number else (last, 0)
            self.visits.append(Visit(len(self.starts), session, network, microseconds(text)))
            if number:
                self.numbers.append(number)
        else:
            raise ValueError(kind)

    def _check(self) -> None:
        plan = self.index["plan"]
        if not self.starts:
            raise NasError(f"{self.path} holds no visit; connect the phone and run {SCRIPT}")
        for what, *found in zip(STARTS, [self.index["id"], *self.starts[0][1:]], *self.starts, strict=True):
            if len(set(found)) > 1:
                raise NasError(f"{self.path} holds visits of more than one {what}; measure each into a file of its own")
        for before, number in pairwise(self.numbers):
            if number <= before:
                raise NasError(f"{self.path}: visit {number} comes after visit {before}: it was edited; {NEW}")
        groups = {(visit.start, visit.session) for visit in self.visits}
        if groups - {(visit.start, visit.session) for visit in self.visits if visit.network == 0}:
            raise NasError(f"{self.path} lacks visits of the reference network: it was edited; {NEW}")
        done = set(self.numbers)
        missing = {number: network for number, (_, network) in enumerate(plan, 1) if number not in done}
        if missing and self.numbers and (lost := min(missing)) < self.numbers[-1]:
            raise NasError(f"{self.path}: the line of visit {lost} is lost: it was edited; {NEW}")
        if missing:
            networks = len(set(missing.values()))
            raise NasError(
                f"{self.path} was cut short: {len(missing)} of {len(plan)} visits are missing, so that {networks} of "
                f"{len(self.index['keys'])} rows and networks are not done; connect the phone and run {SCRIPT} again, "
                "which goes on where it stopped"
            )

    @property
    def device(self) -> Device:
        """Return the phone: maker and model, then its cores as those of a board are named, or its processor."""
        fact = self.facts.get
        name, cpuinfo = f"{fact('manufacturer', '')} {fact('model', '')}".strip(), fact("cpuinfo", "")
        with tempfile.TemporaryDirectory() as folder:  # for the files that a device is read from
            texts = {"proc/cpuinfo": cpuinfo, "proc/device-tree/model": name}
            for file, text in texts.items():
                Path(folder, file).parent.mkdir(parents=True, exist_ok=True)
                Path(folder, file).write_text(text, encoding="utf-8")
            read = Device.read(Path(folder))
        # Without numbers of cores the name would be the one that this machine's own system gives to its processor.
        model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
        others = ", ".join([name, *([model[1]] if model else [])])
        governor, fastest = fact("governor", ""), [int(n) for n in fact("max_khz", "").split() if n.isdecimal()]
        return replace(
            read,
            cpu=read.cpu if "CPU implementer" in cpuinfo else others,
            cores=len(re.findall(r"^processor\s*:", cpuinfo, re.MULTILINE)) or 1,
            architecture=fact("architecture", "unknown"),
            os=f"Android {fact('release', '')}",
            governor=governor if governor.isidentifier() else None,  # some phones do not let a shell read it
            max_mhz=max(fastest) // 1000 if fastest else None,
        )

    @property
    def runtime(self) -> RuntimeId:
        """Return the runtime. benchmark_model tells no version, and its checksum stands for it."""
        version = f"benchmark_model-{self.starts[0][2]}"
        return RuntimeId(RUNTIME, version, self.index["threads"], self.index["precision"])

    @property
    def warning(self) -> str | None:
        """Return a line if the phone's speed changed much while it was measured."""
        times = [visit.microseconds / 1000 for visit in self.visits if visit.network == 0]
        low, high = np.quantile(times, [0.1, 0.9])
        if high <= SLOWED * low:
            return None
        return (
            f"warning: the phone's speed changed while it was measured: {self.index['reference']['network']} took "
            f"{low:.2f} to {high:.2f} ms; times are less sure. Cool the phone, and {NEW}"
        )

    def table(self, path: str | Path | None = None) -> LatencyTable:
        """Return the table, not yet saved. `path` is by default its device's own file in `latency_tables/`."""
        device, runtime, reference = self.device, self.runtime, self.index["reference"]
        path = Path(path) if path else default_path(device, runtime, self.index["num_classes"])
        table = LatencyTable(device, runtime, float("inf"), path, num_classes=self.index["num_classes"])
        if reference["spec_id"] != table.reference.spec.id:
            raise NasError(f"{self.path}: its reference is another network than this program's; write the bundle anew")
        sessions: dict[int, list[Visit]] = defaultdict(list)
        for visit in self.visits:
            sessions[visit.session].append(visit)
        for number, visits in sorted(sessions.items()):
            timings, reference_ms = timings_of(visits)
            table.reference_ms = min(table.reference_ms, reference_ms)
            for network, timing in timings.items():
                key = self.index["keys"][network]
                if spec := self.index["networks"].get(key):
                    new, known = WholeNetwork.of(spec, timing.ratio, timing.error, number + 1), table.networks.get(key)
                    table.networks[key] = known.merged(new) if known else new
                else:
                    table.rows[key] = Row.of(timing, number + 1)
        return table


def microseconds(text: str) -> float:
    """Return the mean time of a run, the slowest one left out: an interruption would count for all others.

    `text` is what benchmark_model prints (`OutputToStream` of TensorFlow's `Stat`): "count=50 first=… curr=… min=…
    max=… avg=… std=…", and some percentiles in newer versions; of equal times "count=50 curr=45(all same)".
    Raises ValueError for another text, or if there was no run or no time.
    """
    found = _SPREAD.fullmatch(text) or _ALL_SAME.fullmatch(text)
    if found is None:
        raise ValueError(text)
    values = {name: float(value) for name, value in found.groupdict().items()}
    count, mean = values["count"], values["avg"]
    if "max" in values and count > 1:
        mean = (count * mean - values["max"]) / (count - 1)
    if not (count > 0 and mean > 0):
        raise ValueError(text)
    return mean


def timings_of(visits: Sequence[Visit]) -> tuple[dict[int, Timing], float]:
    """Return the timing of each network of a session, and the lower quartile of the reference network's times (ms).

    The ratio of a visit is to the reference network's time at that moment, which is interpolated between its visits
    before and after, of the same start of the script.
    """
    ratios: dict[int, list[float]] = defaultdict(list)
    times: dict[int, list[float]] = defaultdict(list)
    for start in dict.fromkeys(visit.start for visit in visits):
        own = [visit for visit in visits if visit.start == start]
        logs = np.log([visit.microseconds for visit in own])
        places = [place for place, visit in enumerate(own) if visit.network == 0]
        reference = np.interp(np.arange(len(own)), places, logs[places])
        for visit, ratio in zip(own, np.exp(logs - reference), strict=True):
            ratios[visit.network].append(float(ratio))
            times[visit.network].append(visit.microseconds / 1000)
    timings = {network: _timing(found, times[network]) for network, found in ratios.items() if network}
    return timings, float(np.quantile(times[0], 0.25))


def _timing(ratios: Sequence[float], milliseconds: Sequence[float]) -> Timing:
    q1, ratio, q3 = weighted_quantiles(np.array(ratios), np.ones(len(ratios)), (0.25, 0.5, 0.75))
    error = error_of_median((q1, q3), len(ratios)) / ratio
    return Timing(ratio, (q1, q3), len(ratios), error, float(np.median(milliseconds)))


def _index(path: str | Path, head: str) -> dict[str, Any]:
    """Return the index of a bundle from the first line of results. Raises NasError."""
    try:
        index = json.loads(head)
        known = index["format"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise NasError(f"{path}: no results of an Android bundle; {SCRIPT} of such a bundle writes them") from None
    if known != FORMAT:
        raise NasError(f"{path}: its format is {known!r}, and this program reads {FORMAT!r}; write the bundle anew")
    if index.get("id") != id_of(index):
        raise NasError(f"{path}: its first line does not fit its id: it was edited or cut; {NEW}")
    return dict(index)
