#!/usr/bin/env bash
# The paper's Table 6 (methods) and Table 2 (augmentation policies), in small: the three DINOv2
# recipes and MoCo v3 under one policy, MoCo v3 under every policy, on the same shards with the same
# budget; each probed on the same benchmarks; both tables printed.
#
#   SHARDS=shards BENCHMARKS="benchmarks/consep benchmarks/ami-br" OUT=runs/compare \
#       bash train/compare.sh
#   … bash train/compare.sh list      # the nine training commands, one a line, for an array job
#   … bash train/compare.sh probe     # when they have run: probe and print
#
# About half an hour on 2 quiet cores. Run it again after a stop: every part
# goes on where it was. The settings are a CPU's, alike for all but what a method has of its own.
# shellcheck disable=SC2086 # lists of words
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
: "${SHARDS:?a folder of shards}" "${BENCHMARKS:?folders of benchmarks}" "${OUT:?a folder for runs}"
images=${IMAGES:-12800} # of a run
jobs=${JOBS:-$(nproc)}  # runs at a time, a thread each
policy=${POLICY:-light} # of Table 6, and a further row of Table 2: a1 teaches little in so few steps
policies=(a0 a1 a1+gray a1+gmm1 a1+gmm10)
methods=(dinov2 dinov2-no-local dinov2-no-local-kde)

common="--data $SHARDS --encoder vit_ti8 --batch 32 --epochs 1 --epoch-samples $images
    --warmup-epochs 0.1 --momentum 0.95 --workers 0 --checkpoint-every 100"
moco="--method moco --lr 8e-3 --hidden 1024"
# Layer scale and stochastic depth are for deep networks and long runs: from 1e-5 nothing would be
# learnt in some hundred steps. Prototypes are 1,024 where official ones are 65,536, as batches of 32
# on a CPU give most of more no view; all else is official (train/main.py --help).
dino="--hidden 512 --bottleneck 128 --prototypes 1024 --layer-scale 0 --drop-path 0
    --temperature-epochs 0.3 --freeze-last-epochs 0.02"

commands() {
    for method in "${methods[@]}"; do
        echo "$here/train/main.py --out $OUT/$method--$policy --policy $policy" \
            --method "$method" $dino $common
    done
    for name in "$policy" "${policies[@]}"; do
        echo "$here/train/main.py --out $OUT/moco--$name --policy $name" $moco $common
    done
}

probe() {
    local encoders=(untrained)
    for method in "${methods[@]}"; do encoders+=("$method--$policy=$OUT/$method--$policy"); done
    for name in "$policy" "${policies[@]}"; do encoders+=("moco--$name=$OUT/moco--$name"); done
    python "$here/evaluate/main.py" probe --encoder "${encoders[@]}" --benchmark $BENCHMARKS \
        --out "$OUT/results" --precision bf16 --knn 0 --bootstrap 0 >"$OUT/probe.log"
    python "$here/evaluate/main.py" compare "$OUT/results" --name table6 --first Model --rows \
        "untrained=untrained" "DINOv2-Baseline=dinov2--$policy" \
        "DINOv2-No local-to-global=dinov2-no-local--$policy" \
        "DINOv2-No local-to-global + KDE=dinov2-no-local-kde--$policy" "MoCov3=moco--$policy"
    local rows=("untrained=untrained" "a0 (MoCo)=moco--a0")
    for name in "${policies[@]:1}" "$policy"; do rows+=("$name=moco--$name"); done
    python "$here/evaluate/main.py" compare "$OUT/results" --name table2 --first Augmentations \
        --rows "${rows[@]}"
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
