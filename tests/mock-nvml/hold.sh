#!/bin/sh
# A stand-in for a training: holds memory on the first card of CUDA_VISIBLE_DEVICES, or fails as PyTorch would.
#
#   hold.sh MIB SECONDS [RAMP]
#
# It takes MIB and holds them for SECONDS. With RAMP it takes half at first, and the rest RAMP seconds later. Emulated
# memory is a file in $MOCK_NVML_STATE/held that counts while this process lives.
set -eu
mib=$1 seconds=$2 ramp=${3:-}
state=$MOCK_NVML_STATE
card=${CUDA_VISIBLE_DEVICES%%,*}
if [ -z "$card" ]; then
    echo "RuntimeError: No CUDA GPUs are available" >&2
    exit 1
fi
# One may also be named by its UUID.
if [ -f "$state/card-$card" ]; then
    card=$(cat "$state/card-$card")
fi
# It has the card open from now on.
exec 8>>"$state/nvidia$card"
mine=$state/held/$$-$card
late=$state/late-$card
trap '[ -f "$late" ] || rm -f "$mine"' EXIT

# Takes $1 MiB in all. Looking and taking are one step, as in a real driver.
take() {
    exec 9>"$state/lock"
    flock 9
    free=$(cat "$state/room-$card")
    for other in "$state"/held/*-"$card"; do
        pid=${other##*/} pid=${pid%%-*}
        if [ "$other" != "$mine" ] && { [ -d "/proc/$pid" ] || [ -f "$late" ]; }; then
            if [ -f "$state/single-$card" ]; then
                echo "RuntimeError: CUDA error: CUDA-capable device(s) is/are busy or unavailable (emulated)" >&2
                exit 1
            fi
            free=$((free - $(cat "$other" 2>/dev/null || echo 0)))
        fi
    done
    if [ "$1" -gt "$free" ]; then
        echo "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate $1 MiB. GPU 0 has $free MiB free. (emulated)" >&2
        exit 1
    fi
    echo "$1" >"$mine.draft$$"
    mv "$mine.draft$$" "$mine"
    exec 9>&-
}

if [ -n "$ramp" ]; then
    take $((mib / 2))
    sleep "$ramp"
fi
take "$mib"
echo "holding $mib MiB on card $card"
# Waits for nothing else than its time; a signal ends both.
sleep "$seconds" &
nap=$!
trap 'kill "$nap" 2>/dev/null; exit 143' TERM INT
wait "$nap"
