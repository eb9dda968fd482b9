#!/bin/sh
# Trains on the TPU of a TPU VM; run on that machine. A run that was broken off goes on.
#   deploy/training/tpu-vm.sh FLAGS of python -m trainer.task …
#   deploy/training/tpu-vm.sh recogniser --records RECORDS --text TEXT --output RUN
# TensorFlow for TPUs is another wheel than the usual one: the image of the TPU VM brings it, or see Google's
# documentation of TPU software versions.
set -eu
if [ "$#" -lt 3 ]; then
    sed -n '2,4s/^# //p' "$0" >&2
    exit 1
fi
exec "${PYTHON:-python}" -m trainer.task --strategy tpu --tpu local --precision mixed_bfloat16 --processes "$(nproc)" "$@"
