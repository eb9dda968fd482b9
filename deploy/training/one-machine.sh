#!/bin/sh
# Trains on all GPUs of one machine; a run that was broken off goes on.
#   deploy/training/one-machine.sh recogniser DATA TEXT RUN [further flags of python -m trainer.task]
set -eu
if [ "$#" -lt 4 ]; then
    sed -n '2,3s/^# //p' "$0" >&2
    exit 1
fi
network=$1 data=$2 text=$3 output=$4
shift 4
exec python -m trainer.task "$network" --data "$data" --text "$text" --output "$output" \
    --strategy mirrored --jit --processes "$(nproc)" "$@"
