#!/usr/bin/env bash
# The paper's Table 6 (methods) and Table 2 (augmentation policies), in small: the three DINOv2
# recipes and MoCo v3 under one policy, MoCo v3 under every policy, on the same shards with the same
# budget, over several seeds; each probed on the same benchmarks; both tables printed, with
# shuffled folds and with groups kept whole.
#
#   SHARDS=shards BENCHMARKS="benchmarks/consep benchmarks/ami-br" OUT=runs/compare \
#       bash train/compare.sh
#   … bash train/compare.sh list      # the training commands, one a line, for an array job
#   … bash train/compare.sh probe     # when they have run: probe and print
#
# About an hour and three quarters on 2 cores, a third of it with SEEDS=0. Run it again after a
# stop: every part goes on where it was. The settings are a CPU's, alike for all but what a
# method has of its own; policies are tried on resnet18s, twice as many images a second.
# shellcheck disable=SC2086 # lists of words
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
: "${SHARDS:?a folder of shards}" "${BENCHMARKS:?folders of benchmarks}" "${OUT:?a folder for runs}"
seeds=${SEEDS:-0 1 2}
jobs=${JOBS:-$(nproc)}  # runs at a time, a thread each
policy=${POLICY:-light} # of Table 6
policies=(a0 a1 a1+gray a1+gmm1 a1+gmm10 light)
methods=(dinov2 dinov2-no-local dinov2-no-local-kde)

common="--data $SHARDS --epochs 1 --warmup-epochs 0.1 --momentum 0.98 --workers 0
    --checkpoint-every 100"
by_method="--encoder vit_ti8 --batch 64 --epoch-samples ${METHOD_IMAGES:-40000}"
by_policy="--encoder resnet18s --batch 128 --epoch-samples ${POLICY_IMAGES:-60000}
    --lr 3e-3 --hidden 1024 --projector-layers 3"
moco="--lr 4e-3 --hidden 1024"
# For some hundred steps of 64 images: no layer scale, stochastic depth or decay of the rate by
# layer, which are for deep networks and long runs; 512 prototypes behind a narrow bottleneck, and a
# cold teacher, without which its targets stay flat. Rates, weight decay and widths are set for a
# CPU too; all else is official (train/main.py --help).
dino="--lr 8e-3 --hidden 512 --bottleneck 32 --prototypes 512 --layer-scale 0 --drop-path 0
    --layer-decay 1 --patch-lr 1 --end-weight-decay 0.1 --freeze-last-epochs 0.02
    --start-temperature 0.03 --teacher-temperature 0.04 --temperature-epochs 1"

commands() {
    for seed in $seeds; do
        for method in moco "${methods[@]}"; do
            local own=$dino
            [ $method = moco ] && own=$moco
            echo "$here/train/main.py --out $OUT/$method--$seed --policy $policy --seed $seed" \
                --method $method $own $by_method $common
        done
        for name in "${policies[@]}"; do
            echo "$here/train/main.py --out $OUT/$name--$seed --policy $name --seed $seed" \
                $by_policy $common
        done
    done
}

table() { # NAME FIRST LABEL=RUN...: probe the runs of all seeds, and an untrained one; print
    local rows=(untrained) encoders=(untrained) pair seed runs
    for pair in "${@:3}"; do
        runs=()
        for seed in $seeds; do runs+=("${pair#*=}--$seed"); done
        for run in "${runs[@]}"; do encoders+=("$run=$OUT/$run"); done
        rows+=("${pair%%=*}=$(IFS=, && echo "${runs[*]}")")
    done
    python "$here/evaluate/main.py" probe --encoder "${encoders[@]}" --benchmark $BENCHMARKS \
        --out "$OUT/$1" --precision bf16 --knn 0 --bootstrap 0 >>"$OUT/probe.log"
    for split in stratified grouped; do
        printf '\n%s folds\n\n' $split
        python "$here/evaluate/main.py" compare "$OUT/$1" --name "$1-$split" --first "$2" \
            --metric "balanced accuracy" --split $split --rows "${rows[@]}"
    done
}

probe() {
    table table6 Model DINOv2-Baseline=dinov2 "DINOv2-No local-to-global=dinov2-no-local" \
        "DINOv2-No local-to-global + KDE=dinov2-no-local-kde" MoCov3=moco
    table table2 Augmentations "a0 (MoCo)=a0" a1=a1 a1+gray=a1+gray a1+gmm1=a1+gmm1 \
        a1+gmm10=a1+gmm10 light=light
}

case ${1:-all} in
list) commands ;;
probe) probe ;;
all)
    export OMP_NUM_THREADS=1
    mkdir -p "$OUT"
    # shellcheck disable=SC2016 # for the inner shell
    commands | xargs -P "$jobs" -I '{}' bash -c 'python {} >>"$0/train.log" 2>&1' "$OUT"
    probe
    ;;
*) echo "list, probe or nothing" >&2 && exit 2 ;;
esac
