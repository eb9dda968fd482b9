#!/bin/sh
# Trains on the TPU of a TPU VM; run on that machine. A run that was broken off goes on.
#   deploy/training/tpu-vm.sh recogniser DATA TEXT RUN [further flags of python -m trainer.task]
# TensorFlow for TPUs is another wheel than the usual one: the image of the TPU VM brings it, or see Google's
# documentation of TPU software versions.
set -eu
if [ "$#" -lt 4 ]; then
    sed -n '2,3s/^# //p' "$0" >&2
    exit 1
fi
network=$1 data=$2 text=$3 output=$4
shift 4
exec python -m trainer.task "$network" --data "$data" --text "$text" --output "$output" \
    --strategy tpu --tpu local --precision mixed_bfloat16 --processes "$(nproc)" "$@"
