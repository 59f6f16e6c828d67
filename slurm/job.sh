# shellcheck shell=bash disable=SC2034
# What the recipes share; they source it after the settings. Sets `me`, and for `run`: `rc`, `warned`.

# One task of an array has the id of the whole array: `scontrol requeue` of it would start all anew.
me=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
me=${me:-$SLURM_JOB_ID}
log() { echo "== $*"; }
log "job $me, start $((${SLURM_RESTART_COUNT:-0} + 1)), on $SLURM_JOB_NODELIST, $(date -Is)"
trap 'rc=$?; log "end $rc, $(date -Is)"; exit "$rc"' EXIT

child='' warned='' rc=0
stop() { kill -TERM "$child"; } # how this recipe ends early; train.sbatch has its own
trap 'warned=1; log "the time limit is near"; [ -z "$child" ] || stop' USR2
trap 'log "SIGTERM: ends"; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null' TERM

# Run a command and wait for it, though signals interrupt the waiting. Its exit code is in `rc`.
run() {
    "$@" &
    child=$!
    wait "$child"
    rc=$?
    while kill -0 "$child" 2>/dev/null; do
        wait "$child"
        rc=$?
    done
    child=''
}

# Put this task, and only this one, back into the queue.
again() {
    log "$1: to be started again"
    scontrol requeue "$me"
    sleep 30 # SLURM ends this start
    exit 0
}

eval "$SETUP"
