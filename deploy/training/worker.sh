#!/bin/sh
# One worker of a cluster; started on each machine with the same list of workers and its own number.
#   deploy/training/worker.sh NUMBER HOST:PORT,HOST:PORT[,…] FLAGS of python -m trainer.task …
# All workers read the same data and the same --output folder, on a file system that they share. When a worker is lost
# the others end; this script starts its worker again, and all go on from the last checkpoint.
set -u
if [ "$#" -lt 3 ]; then
    sed -n '2,3s/^# //p' "$0" >&2
    exit 1
fi
number=$1 workers=$(printf '%s' "$2" | sed 's/,/", "/g')
shift 2
TF_CONFIG="{\"cluster\": {\"worker\": [\"$workers\"]}, \"task\": {\"type\": \"worker\", \"index\": $number}}"
export TF_CONFIG

child=
trap 'stopped=1; [ -n "$child" ] && kill -TERM "$child"' TERM INT
stopped=0 attempts=0
while :; do
    ${PYTHON:-python} -m trainer.task "$@" --strategy multi_worker &
    child=$!
    wait "$child"
    code=$?
    while kill -0 "$child" 2>/dev/null; do # a signal ends `wait`, the worker is writing its checkpoint
        wait "$child"
        code=$?
    done
    attempts=$((attempts + 1))
    # 0 is done, 1 to 7 are errors that another attempt does not mend; see the README's table.
    if [ "$code" -lt 15 ] || [ "$stopped" = 1 ] || [ "$attempts" -ge "${MAX_ATTEMPTS:-20}" ]; then
        exit "$code"
    fi
    echo "worker $number ended with code $code, begins again" >&2
    sleep "${PAUSE_S:-10}"
done
