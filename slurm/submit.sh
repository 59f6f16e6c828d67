#!/usr/bin/env bash
# The experiment on a SLURM cluster, from slides to the report.
#
#   bash slurm/submit.sh my-settings.sh [--dry-run]
#
# Checks the settings, looks at what is on disk and in the queue, and submits what is missing: run it
# again at any time. `python slurm/status.py OUT` says how the campaign stands.
# shellcheck disable=SC2046,SC2206,SC2207 # words of flags
set -euo pipefail
LEMON=$(cd "$(dirname "$0")/.." && pwd)
usage() { sed -n '4p' "$0" | cut -c5-; }
settings=${1:-} dry=${2:-}
if [ ! -f "$settings" ] || [[ $dry != "" && $dry != --dry-run ]]; then
    echo "error: ${settings:-no settings file} $dry; usage: $(usage)" >&2
    exit 2
fi
set -a +u # exported, for plan.py
# shellcheck disable=SC1090
. "$settings"
set +a
eval "${SETUP:-}" # a site's own scripts are not written for `set -u` either
set -u

if [ -z "$dry" ]; then # two of these at once would submit everything twice
    mkdir -p "${OUT:?is not set in $settings}/logs" || { echo "error: OUT=$OUT cannot be made" >&2; exit 2; }
    exec 9>"$OUT/.submit.lock"
    flock --nonblock 9 || { echo "error: another submit.sh is at work on $OUT" >&2; exit 2; }
fi

# What the cluster says ----------------------------------------------------------------------------
facts=$(mktemp -d)
trap 'rm -rf "$facts"' EXIT
know=(--queue "$facts/queue")
if sinfo --noheader --format=%R >"$facts/partitions" 2>"$facts/error" &&
    squeue --noheader --array --me --format='%j|%F|%K|%T|%r' >"$facts/queue" 2>"$facts/error"; then
    know+=(--partitions "$facts/partitions" --max-array
        "$(scontrol show config | awk '$1 == "MaxArraySize" { print $3 }')")
elif [ -n "$dry" ]; then
    echo "SLURM does not answer: queue, partitions and MaxArraySize are not looked at" >&2
    : >"$facts/queue"
else
    echo "error: SLURM does not answer, nothing was submitted: $(tail -n 1 "$facts/error")" >&2
    exit 2
fi

# What is to be done -------------------------------------------------------------------------------
# shellcheck disable=SC2086
$WRAP python "$LEMON/slurm/plan.py" "${know[@]}" $dry >"$facts/plan"

submit() { # submit JOB RECIPE FLAGS…: behind the job before; sets `new` to the id
    local job=$1 recipe=$2 command
    shift 2
    # shellcheck disable=SC2086
    command=(sbatch --parsable --job-name="lemon-$id-$job" "$@"
        ${ACCOUNT:+--account="$ACCOUNT"} ${after:+--dependency="$after" --kill-on-invalid-dep=yes}
        $SBATCH_FLAGS "$LEMON/slurm/$recipe" "$OUT")
    if [ -n "$dry" ]; then
        new="<$job>"
        echo "${command[*]}"
    else
        new=$("${command[@]}")
        new=${new%%;*} # of "id;cluster"
        echo "$job: job $new${after:+, $after}"
        printf '%s\t%s\t%s\t%s\n' "$(date -Is)" "$job" "$new" "$array" >>"$OUT/jobs.tsv"
    fi
}
gres() { [ "$1" -eq 0 ] || echo "--gres=$GRES:$1"; } # gres N: of N GPUs

# The chain: each job waits until the one before is done (afterok) ---------------------------------
before='' submitted=0
while read -r -u 3 job array live _; do
    new='' after=${before:+afterok:$before}
    many=(--array="$array" --output="$OUT/logs/$job-%a.log") # a log a unit, whichever job does it
    one=(--output="$OUT/logs/$job-0.log")
    small=(--partition="$CPU_PARTITION" --cpus-per-task=1 --mem=4G --time=04:00:00)
    mix=(--partition="$CPU_PARTITION" --cpus-per-task="$MIX_CPUS"
        --mem="$(awk "BEGIN { print int(($MIX_MEMORY + 4) * 1024) }")M" --time="$MIX_TIME")
    evaluate=(--partition="$GPU_PARTITION" --cpus-per-task="$EVALUATE_CPUS" $(gres "$EVALUATE_GPUS")
        --mem="$EVALUATE_MEMORY" --time="$EVALUATE_TIME")

    if [ "$job" = campaign ]; then
        id=$array
        continue
    elif [ "$job" = cancel ]; then # it waits for too little; submitted anew below
        echo "cancel: job $array"
        [ -n "$dry" ] || scancel "$array"
        continue
    elif [ "$job" = release ]; then # SLURM failed to start it, and holds it for good
        echo "release: task $array"
        [ -n "$dry" ] || scontrol release "$array"
        continue
    elif [ "$array" = none ]; then
        echo "$job: queued or running as job ${live//:/, }"
    else
        submitted=$((submitted + 1))
        case $job in
            extract)
                many[0]="--array=$array%$EXTRACT_AT_ONCE"
                submit extract extract.sbatch "${many[@]}" --partition="$GPU_PARTITION" \
                    --cpus-per-task="$EXTRACT_CPUS" $(gres "$EXTRACT_GPUS") \
                    --mem="$EXTRACT_MEMORY" --time="$EXTRACT_TIME"
                ;;
            admit) # failed slides or not: it counts them
                after=${before:+afterany:$before}
                submit admit admit.sbatch "${one[@]}" "${small[@]}"
                ;;
            sort | write) submit "$job" mix.sbatch "${many[@]}" "${mix[@]}" ;;
            join) submit join mix.sbatch "${one[@]}" "${mix[@]}" ;;
            train)
                submit train train.sbatch "${one[@]}" --partition="$GPU_PARTITION" \
                    --nodes="$TRAIN_NODES" --ntasks-per-node=1 $(gres "$TRAIN_GPUS") \
                    --cpus-per-task="$TRAIN_CPUS" --mem="$TRAIN_MEMORY" --time="$TRAIN_TIME" \
                    --signal="B:USR2@$TRAIN_WARNING"
                ;;
            embed) submit embed evaluate.sbatch "${many[@]}" "${evaluate[@]}" ;;
            report) submit report evaluate.sbatch "${one[@]}" "${evaluate[@]}" ;;
        esac
    fi
    [ "$live" = - ] && live=''
    before=$live${live:+${new:+:}}$new
done 3<"$facts/plan"
[ "$submitted" -gt 0 ] || echo "nothing to submit"
