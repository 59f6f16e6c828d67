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
plain=$settings facts=$(mktemp -d)
trap 'rm -rf "$facts"' EXIT
case $(head -c 2 "$settings" | od -An -tx1 | tr -d ' ') in
    fffe | feff)
        echo "error: $settings is UTF-16; save it as UTF-8" >&2
        exit 2
        ;;
esac
if LC_ALL=C grep -q $'\r\|^\xef\xbb\xbf' "$settings"; then # written on Windows
    plain=$facts/settings.sh
    LC_ALL=C sed $'1s/^\xef\xbb\xbf//; s/\r$//' "$settings" >"$plain"
fi
set -a +u # exported, for plan.py
# shellcheck disable=SC1090
. "$(realpath "$plain")" # without a / it would be sought in PATH
set +a
eval "${SETUP:-}" # a site's own scripts are not written for `set -u` either
set -u

if [ -z "$dry" ]; then # two of these at once would submit everything twice
    mkdir -p "${OUT:?is not set in $settings}/logs" || { echo "error: OUT=$OUT cannot be made" >&2; exit 2; }
    exec 9>"$OUT/.submit.lock"
    flock --nonblock --conflict-exit-code 75 9 || {
        [ $? -ne 75 ] || { echo "error: another submit.sh is at work on $OUT" >&2; exit 2; }
        echo "warning: $OUT is on a file system without locks; do not run two submit.sh at once" >&2
    }
fi

# words TEXT: its words one a line, quotes heeded as a shell does, nothing expanded.
words() { xargs -r -n 1 printf '%s\n' <<<"$1"; }
as_array() { # as_array NAME: the words of a setting into an array of the same name in small letters
    words "${!1:-}" >"$facts/words" 2>"$facts/error" || {
        echo "error: $1=${!1}: $(head -n 1 "$facts/error")" >&2
        exit 2
    }
    mapfile -t "${1,,}" <"$facts/words"
}
as_array WRAP
as_array SBATCH_FLAGS

# What the cluster says ----------------------------------------------------------------------------
know=(--queue "$facts/queue")
if squeue --noheader --array --me --format='%j|%F|%K|%T|%r' >"$facts/queue" 2>"$facts/error"; then
    # What a site hides is not looked at: sbatch decides.
    if sinfo --all --noheader --format=%R >"$facts/partitions" 2>"$facts/error"; then
        know+=(--partitions "$facts/partitions")
    else
        echo "warning: sinfo does not answer, partitions are not looked at: $(tail -n 1 "$facts/error")" >&2
    fi
    most=$(scontrol show config 2>"$facts/error" | awk '$1 == "MaxArraySize" { print $3 }') || true
    if [[ $most =~ ^[0-9]+$ ]]; then
        know+=(--max-array "$most")
    else
        echo "warning: scontrol does not say MaxArraySize: $(tail -n 1 "$facts/error")" >&2
    fi
elif [ -n "$dry" ]; then
    echo "SLURM does not answer: queue, partitions and MaxArraySize are not looked at" >&2
    : >"$facts/queue"
else
    echo "error: SLURM does not answer, nothing was submitted: $(tail -n 1 "$facts/error")" >&2
    exit 2
fi

# What is to be done -------------------------------------------------------------------------------
# shellcheck disable=SC2154 # as_array sets it
"${wrap[@]}" python "$LEMON/slurm/plan.py" "${know[@]}" ${dry:+"$dry"} >"$facts/plan"

submit() { # submit JOB RECIPE FLAGS…: behind the job before; sets `new` to the id
    local job=$1 recipe=$2 command
    shift 2
    # shellcheck disable=SC2154 # as_array sets it
    command=(sbatch --parsable --job-name="lemon-$id-$job" "$@"
        ${ACCOUNT:+--account="$ACCOUNT"} ${after:+--dependency="$after" --kill-on-invalid-dep=yes}
        "${sbatch_flags[@]}" "$LEMON/slurm/$recipe" "$OUT")
    if [ -n "$dry" ]; then
        new="<$job>"
        echo "${command[*]}"
        return
    fi
    if ! "${command[@]}" >"$facts/said" 2>"$facts/error"; then
        cat "$facts/said" "$facts/error" >&2
        echo "error: sbatch refused $job: ${command[*]}" >&2
        echo "error: ${accepted:+$accepted stay queued; }change the settings and run this again:" \
            "it submits what is missing" >&2
        exit 2
    fi
    cat "$facts/error" >&2
    new=$(grep -oE '^[0-9]+(;|$)' "$facts/said" | tail -n 1) # "id;cluster", below what a site says
    new=${new%;}
    [ -n "$new" ] || { echo "error: sbatch gave no job id for $job: $(cat "$facts/said")" >&2; exit 2; }
    accepted="${accepted:+$accepted, }$job (job $new)"
    echo "$job: job $new${after:+, $after}"
    printf '%s\t%s\t%s\t%s\n' "$(date -Is)" "$job" "$new" "$array" >>"$OUT/jobs.tsv"
}
partition() { [ -z "$1" ] || echo "--partition=$1"; } # empty: the site's default
gres() { [ "$1" -eq 0 ] || echo "--gres=$GRES:$1"; } # gres N: of N GPUs

# The chain: each job waits until the one before is done (afterok) ---------------------------------
before='' submitted=0 accepted=''
while read -r -u 3 job array live _; do
    new='' after=${before:+afterok:$before}
    many=(--array="$array" --output="$OUT/logs/$job-%a.log") # a log a unit, whichever job does it
    one=(--output="$OUT/logs/$job-0.log")
    small=($(partition "$CPU_PARTITION") --cpus-per-task=1 --mem=4G --time=04:00:00)
    mix=($(partition "$CPU_PARTITION") --cpus-per-task="$MIX_CPUS"
        --mem="$(awk "BEGIN { print int(($MIX_MEMORY + 4) * 1024) }")M" --time="$MIX_TIME")
    evaluate=($(partition "$GPU_PARTITION") --cpus-per-task="$EVALUATE_CPUS" $(gres "$EVALUATE_GPUS")
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
                submit extract extract.sbatch "${many[@]}" $(partition "$GPU_PARTITION") \
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
                submit train train.sbatch "${one[@]}" $(partition "$GPU_PARTITION") \
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
