#!/bin/sh
# Trains on all GPUs of one machine; a run that was broken off goes on.
#   deploy/training/one-machine.sh FLAGS of python -m trainer.task …
#   deploy/training/one-machine.sh recogniser --records RECORDS --text TEXT --output RUN
set -eu
if [ "$#" -lt 3 ]; then
    sed -n '2,4s/^# //p' "$0" >&2
    exit 1
fi
exec "${PYTHON:-python}" -m trainer.task --strategy mirrored --jit --processes "$(nproc)" "$@"
