#!/bin/sh
# Measure the networks of this bundle on an Android phone that is connected to this computer.
#
#   sh measure.sh [--benchmark_model PATH] [--mask HEX] [--results FILE]
#
# It needs adb, and the program benchmark_model of LiteRT for the phone's processor. Every visit runs one
# network and adds a line to the results. The same command goes on after the last line, whatever stopped it.
set -u
LC_ALL=C
export LC_ALL

folder=$(dirname "$0")
binary=$folder/benchmark_model
mask=
results=results.txt
usage='sh measure.sh [--benchmark_model PATH] [--mask HEX] [--results FILE]'
tab=$(printf '\t')

stop() {
    printf '%s\n' "measure.sh: error: $*" >&2
    exit 2
}

while [ $# -gt 0 ]; do
    case $1 in
    --help)
        echo "usage: $usage"
        exit 0
        ;;
    --benchmark_model | --mask | --results) [ -n "${2-}" ] || stop "$1 needs a value" ;;
    *) stop "unknown argument $1; usage: $usage" ;;
    esac
    case $1 in
    --benchmark_model) binary=$2 ;;
    --mask)
        mask=$(printf '%s\n' "$2" | tr 'A-FX' 'a-fx' | sed 's/^0x//; s/^0*//') # as it stands in the results
        case $mask in
        '' | *[!0-9a-f]*) stop "--mask $2: name cores by a number in hexadecimal, such as 80 for core 7" ;;
        esac
        ;;
    --results) results=$2 ;;
    esac
    shift 2
done

# Run a command on the phone. Its status does not come back from every phone: what it prints must tell. It would read
# the plan from this script's input.
on_phone() {
    adb shell "$1" </dev/null 2>&1 | tr -d '\r'
}

fact() {
    on_phone "$2" | sed "s/^/fact$tab$1$tab/"
}

# Run a network, and add the line of its visit to the results: number, network. The line is what benchmark_model says
# last of its runs, "count=...". It says the same of the runs that warm up, so that its end must be there, too.
visit() {
    output=$(on_phone "taskset $mask $place/benchmark_model --graph=$place/$2.tflite --num_threads=$threads \
--use_xnnpack=true --warmup_runs=3 --warmup_min_secs=0.1 --num_runs=10 --min_secs=0.15")
    line=
    case $output in
    *'Inference (avg)'*) line=$(printf '%s\n' "$output" | sed -n 's/^.*\(count=[0-9]\)/\1/p' | tail -n 1) ;;
    esac
    [ -n "$line" ] || stop "visit $1 of $visits, $2.tflite, did not come to its end ($(printf '%s\n' "$output" |
        tail -n 1)); see to the phone and run the same command again"
    append "visit$tab$1$tab$line"
}

# Add a line to the results. The shell's own message of a failure would be a second one.
append() {
    { printf '%s\n' "$1" >>"$results"; } 2>/dev/null ||
        stop "$results cannot be written; make room and run the same command again"
}

# Bring the networks of a session to the phone, which holds those of one session at a time.
bring() {
    wanted=$(awk -v session="$1" 'NR > 1 && $2 == session {print $3}' "$folder/plan.txt" | sort -nu)
    set --
    for network in $wanted; do
        set -- "$@" "$folder/networks/$network.tflite"
    done
    on_phone "rm -f $place/*.tflite" >/dev/null
    said=$(adb push "$@" "$place/" </dev/null 2>&1) || stop "the networks cannot be brought to the phone \
($(printf '%s\n' "$said" | tail -n 1)); see to the phone and run the same command again"
}

progress() {
    left=$(((($(date +%s) - begun) * (visits - $1) / ($1 - finished + 1) + 59) / 60))
    if [ -t 2 ]; then
        printf '\rvisit %s of %s, %s min left \033[K' "$1" "$visits" "$left" >&2
    elif [ $(($1 % 100)) -eq 0 ]; then
        echo "visit $1 of $visits, $left min left" >&2
    fi
}

connected() {
    answer=$(on_phone 'echo here')
    [ "$answer" = here ] ||
        stop "no phone answers ($answer); plug in one phone, allow USB debugging on it, and run the same command again"
}

# Stop if there are fewer cores than threads: what has them, how many, what to do.
enough() {
    [ "$2" -ge "$threads" ] || stop "$1 $2 core$([ "$2" -eq 1 ] || echo s), and the bundle is for $threads threads; $3"
}

same() {
    [ "$2" = "$3" ] || stop "$results is of another $1; remove it to begin anew, or name another file with --results"
}

# What is needed -----------------------------------------------------------------------------------------

command -v adb >/dev/null || stop "adb is not installed; it is part of Android's platform tools"
[ -f "$binary" ] ||
    stop "$binary: no such file; download benchmark_model for Android, and name it with --benchmark_model"
[ -f "$folder/plan.txt" ] && [ -f "$folder/index.json" ] ||
    stop "$folder lacks plan.txt or index.json; unzip the whole bundle into one folder"
[ ! -d "$results" ] || stop "$results is a folder; name a file with --results"
[ -w "$(dirname "$results")" ] ||
    stop "$results cannot be written: its folder does not exist or is closed to you; name another file with --results"
connected

read -r bundle threads visits <"$folder/plan.txt"
place=/data/local/tmp/nas-$bundle
# The phone's own number stays out of the results.
phone=$(on_phone 'getprop ro.serialno; getprop ro.build.fingerprint' | cksum | tr ' ' -)
program=$(cksum <"$binary" | tr ' ' -)

# Results --------------------------------------------------------------------------------------------------

first=
if [ -s "$results" ]; then
    first=$(grep "^begin$tab" "$results" | head -n 1)
    [ -n "$first" ] || stop "$results holds something else; name another file with --results"
    if [ -n "$(tail -c 1 "$results")" ]; then # a line that was cut
        { sed '$d' "$results" >"$results.side" && mv "$results.side" "$results"; } 2>/dev/null ||
            stop "$results cannot be written"
    fi
    [ -n "$mask" ] || mask=$(printf '%s\n' "$first" | cut -f 5)
fi
if [ -z "$mask" ]; then
    # The fastest cores, of equal ones the last.
    cores=$(on_phone 'for c in /sys/devices/system/cpu/cpu[0-9]*; do echo "$(cat $c/cpufreq/cpuinfo_max_freq) ${c##*cpu}"; done' |
        grep '^[0-9][0-9]* [0-9][0-9]*$' | sort -k1,1nr -k2,2nr | cut -d ' ' -f 2)
    connected
    [ -n "$cores" ] || stop "the phone does not say how fast its cores are; name one with --mask, such as 80 for core 7"
    count=$(printf '%s\n' "$cores" | wc -l | tr -d ' ')
    enough "the phone has" "$count" "write one with --threads $count"
    bits=0
    for core in $(printf '%s\n' "$cores" | head -n "$threads"); do bits=$((bits | 1 << core)); done
    mask=$(printf %x "$bits")
fi
connected # otherwise an error of adb stands in the place of the phone's numbers
begin="begin$tab$bundle$tab$phone$tab$program$tab$mask"
if [ -n "$first" ]; then
    same bundle "$(printf '%s\n' "$first" | cut -f 2)" "$bundle"
    same phone "$(printf '%s\n' "$first" | cut -f 3)" "$phone"
    same benchmark_model "$(printf '%s\n' "$first" | cut -f 4)" "$program"
    same "mask of cores" "$(printf '%s\n' "$first" | cut -f 5)" "$mask"
fi
ones=$(printf '%s\n' "$mask" | sed 's/[1248]/1/g; s/[3569ac]/11/g; s/[7bde]/111/g; s/f/1111/g; s/[^1]//g')
enough "the mask $mask names" ${#ones} "name more with --mask, or write a bundle with --threads ${#ones}"
said=$(on_phone "taskset $mask true && echo fits")
connected
[ "$said" = fits ] || stop "the phone runs nothing on the cores of mask $mask \
($(printf '%s\n' "$said" | tail -n 1)); name other cores with --mask"
if [ -z "$first" ]; then
    {
        cat "$folder/index.json"
        fact manufacturer 'getprop ro.product.manufacturer'
        fact model 'getprop ro.product.model'
        fact release 'getprop ro.build.version.release'
        fact architecture 'uname -m'
        fact governor 'cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor'
        fact max_khz 'cat /sys/devices/system/cpu/cpu*/cpufreq/cpuinfo_max_freq'
        fact cpuinfo 'cat /proc/cpuinfo'
        printf '%s\n' "$begin"
    } 2>/dev/null >"$results.side" || stop "$results cannot be written"
    connected
    mv "$results.side" "$results" 2>/dev/null || stop "$results cannot be written"
fi
# The visits that are done, or a word if they do not stand there from the first one on.
finished=$(awk -F "$tab" '$1 == "visit" && $2 != 0 && $2 != ++last {print "edited"; lost = 1; exit}
END {if (!lost) print last + 0}' "$results")
[ "$finished" != edited ] ||
    stop "$results lacks lines or has them twice: it was edited; measure again into a new file (--results)"
if [ "$finished" -ge "$visits" ]; then
    echo "$results is complete: python -m nas.measure --from $results"
    exit 0
fi
if [ -n "$first" ]; then
    echo "resuming $results: $finished of $visits visits are done" >&2
    append "$begin"
fi

# Visits -----------------------------------------------------------------------------------------------------

on_phone "mkdir -p $place" >/dev/null
said=$(adb push "$binary" "$place/benchmark_model" </dev/null 2>&1) ||
    stop "benchmark_model cannot be brought to the phone ($(printf '%s\n' "$said" | tail -n 1))"
on_phone "chmod 755 $place/benchmark_model" >/dev/null

begun=$(date +%s)
current=
{
    read -r _
    while read -r number session network; do
        [ "$number" -gt "$finished" ] || continue
        if [ "$session" != "$current" ]; then
            bring "$session"
            [ -n "$current" ] || visit 0 0 # the phone may be cooler than before: the next visits get a reference of now
            current=$session
        fi
        visit "$number" "$network"
        progress "$number"
    done
} <"$folder/plan.txt"
on_phone "rm -rf $place" >/dev/null
[ ! -t 2 ] || echo >&2
echo "$results is complete: python -m nas.measure --from $results"
