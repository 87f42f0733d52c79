"""A phone that is a folder, with stand-ins for adb and benchmark_model that print what the real ones print.

The lines are those of `benchmark_model.cc` and of `Stat::OutputToStream` (tensorflow/core/util/stats_calculator.h).
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ADB = r"""#!/bin/sh
# Like adb, it reads its standard input while a shell runs.
echo "$*" >>"$PHONE/calls"
if [ -e "$PHONE/unplugged" ]; then
    echo "error: no devices/emulators found" >&2
    exit 1
fi
to_folder() { printf '%s' "$1" | sed "s#/data/local/tmp#$PHONE/tmp#g; s#/proc/#$PHONE/proc/#g; s#/sys/#$PHONE/sys/#g"; }
case $1 in
shell)
    shift
    PATH=$PHONE/bin:$PATH sh -c "$(to_folder "$*")" 2>&1 | sed "s/\$/$CR/"
    cat >/dev/null
    ;;
push)
    shift
    for last in "$@"; do :; done
    while [ $# -gt 1 ]; do
        cp "$1" "$(to_folder "$last")" || exit 1
        shift
    done
    echo "1 file pushed, 0 skipped."
    ;;
esac
"""

GETPROP = r"""#!/bin/sh
sed -n "s/^$1=//p" "$PHONE/properties"
"""

TASKSET = r"""#!/bin/sh
[ $((0x$1 & 3)) -ne 0 ] || { echo "taskset: failed to set 1's affinity: Invalid argument"; exit 1; } # of two cores
echo "$1" >>"$PHONE/masks"
shift
exec "$@"
"""

# Runs take the time of $PHONE/times, by the number of the network; the phone becomes slower and faster by a quarter.
BENCHMARK_MODEL = r"""#!/bin/sh
for flag in "$@"; do
    case $flag in
    --graph=*) graph=${flag#--graph=} ;;
    --num_threads=* | --use_xnnpack=true | --warmup_runs=* | --warmup_min_secs=* | --num_runs=* | --min_secs=*) ;;
    *) echo "Unconsumed cmdline flags: $flag"; exit 1 ;;
    esac
done
[ -s "$graph" ] || { echo "ERROR: Could not open '$graph'."; echo "ERROR: Benchmarking failed."; exit 1; }
number=${graph##*/}
run=$(($(cat "$PHONE/run" 2>/dev/null || echo 0) + 1))
echo $run >"$PHONE/run"
cat <<END
${INFO}STARTING!
${INFO}Log parameter values verbosely: [0]
${INFO}Min num runs: [10]
${INFO}Graph: [$graph]
${INFO}Loaded model $graph
INFO: Initialized TensorFlow Lite runtime.
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
${INFO}The input model file size (MB): 0.5
${INFO}Initialized session in 20.283ms.
${INFO}Running benchmark for at least 3 iterations and at least 0.1 seconds but terminate if exceeding 150 seconds.
${INFO}count=4 first=9339304 curr=9339304 min=9266325 max=9339304 avg=9302814 std=36489

END
if [ "$run" = "$(cat "$PHONE/cut" 2>/dev/null)" ]; then
    touch "$PHONE/unplugged"
    exit 1
fi
echo "${INFO}Running benchmark for at least 10 iterations and at least 0.15 seconds but terminate if exceeding 150 \
seconds."
awk -v number="${number%.tflite}" -v run="$run" -v info="$INFO" '
    $1 == number {
        time = $2 * (1 + 0.25 * sin(run / 30))
        count = 100
        for (i = 0; i < count; i++) {
            phase = 1000 * i * 0.6180339887
            took = int(phase + time) - int(phase) # a clock of whole microseconds
            if (i == count - 1 && count * time < 1e5) took += 300 # the system interrupts a run now and then
            if (i == 0) first = min = max = took
            if (took < min) min = took
            if (took > max) max = took
            sum += took
            squares += took * took
        }
        mean = sum / count
        if (min == max) printf "%scount=%d curr=%d(all same)", info, count, took
        else printf "%scount=%d first=%d curr=%d min=%d max=%d avg=%.6g std=%d", info, count, first, took, min, max, \
            mean, sqrt(squares / count - mean * mean)
        if (info != "") printf " p5=%d median=%d p95=%d", min, mean, max
        printf "\n\n%sInference timings in us: Init: 20283, First inference: 9339304, ", info
        printf "Warmup (avg): 9302814, Inference (avg): %.6g\n", mean
    }' "$PHONE/times"
echo "${INFO}Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE."
echo "${INFO}Memory footprint delta from the start of the tool (MB): init=3.8 overall=5.2"
"""

CPUINFO = """processor\t: 0
BogoMIPS\t: 38.40
Features\t: fp asimd evtstrm aes asimdhp cpuid asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x2
CPU part\t: 0xd05
CPU revision\t: 0

processor\t: 1
BogoMIPS\t: 38.40
Features\t: fp asimd evtstrm aes asimdhp cpuid asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x1
CPU part\t: 0xd41
CPU revision\t: 1

"""


@dataclass
class Phone:
    """The phone, and the computer beside it, in one folder.

    `info` is what stands before each line of newer builds of benchmark_model, "INFO: ", which print percentiles, too.
    `carriage_return` ends the lines of older phones.
    """

    folder: Path
    info: str = ""
    carriage_return: str = ""

    def __post_init__(self) -> None:
        cpus = "sys/devices/system/cpu"
        files = {
            "proc/cpuinfo": CPUINFO,
            f"{cpus}/cpu0/cpufreq/cpuinfo_max_freq": "1766400\n",
            f"{cpus}/cpu0/cpufreq/scaling_governor": "schedutil\n",
            f"{cpus}/cpu1/cpufreq/cpuinfo_max_freq": "2841600\n",
            "properties": "ro.serialno=A1\nro.build.fingerprint=maker/one\nro.product.manufacturer=Maker\n"
            "ro.product.model=One 5\nro.build.version.release=14\n",
        }
        for name, text in files.items():
            self.write(name, text)
        (self.folder / "tmp").mkdir()
        for name, text in {
            "bin/getprop": GETPROP,
            "bin/taskset": TASKSET,
            "computer/adb": ADB,
            "benchmark_model": BENCHMARK_MODEL,
        }.items():
            self.write(name, text).chmod(0o755)

    def write(self, name: str, text: str) -> Path:
        """Write a file of the phone."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def set_times(self, milliseconds: Mapping[int, float]) -> None:
        """Set how long a run of each network takes, by its number."""
        self.write("times", "".join(f"{number} {1000 * ms:.6f}\n" for number, ms in milliseconds.items()))

    def measure(self, script: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run the script of a bundle on the computer."""
        environment = os.environ | {
            "PATH": f"{self.folder / 'computer'}:{os.environ['PATH']}",
            "PHONE": str(self.folder),
            "INFO": self.info,
            "CR": self.carriage_return,
        }
        sh = shutil.which("dash") or "/bin/sh"  # dash knows little more than POSIX
        command = [sh, str(script), "--benchmark_model", str(self.folder / "benchmark_model"), *arguments]
        return subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
