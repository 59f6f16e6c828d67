#!/usr/bin/env bash
# The whole pipeline, top to bottom: slides -> cells -> shards -> encoder -> tables, maps, a report.
#
#   make demo                     on painted slides whose nuclei are known
#   make demo SLIDES=my/slides    on your own: a folder, a CSV (path[,slide_id,project,mpp]), a slide;
#                                 seen by the encoder that comes with the clone
#   make demo SLIDES=… TRAIN=…    train one on them first: TRAIN=scratch from random weights,
#                                 TRAIN=lemon-resnet18s from a slim ResNet-18 (docs/training.md)
#   make demo SLIDES=… MPP=0.25   likewise, of images that do not say their µm/px, such as PNGs
#   make demo SLIDES=… BENCHMARK=…   and probe on a benchmark (docs/benchmarks.md)
#   make demo OUT=somewhere       elsewhere than demo/out/<name>
#
# Run it again after a stop: every stage goes on where it was.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
slides=${SLIDES:-}
name=$(basename "${slides:-painted}")
out=${OUT:-$here/demo/out/${name%%.*}}
shipped=lemon-resnet18s # train/shipped.py names it too
train=${TRAIN:-}
cores=$(nproc)
ranks=$((cores < 2 ? 1 : cores < 4 ? 2 : 4)) # each with its share of the cores
start=$SECONDS
step() { printf '\n[%d s] %s\n' $((SECONDS - start)) "$*"; }
# A stage with its own output, but for the next command, which this script gives.
run() { "$@" | sed '/^next: /d'; }

benchmark=(${BENCHMARK:+"$BENCHMARK"})
if [ -z "$slides" ]; then
    step "paint slides with known nuclei of four kinds"
    run python "$here/demo/main.py" --out "$out/painted" --slides 10 --held-out 5 --size 1536
    slides=$out/painted/slides.csv
    benchmark=("$out/painted/painted-nuclei")
    train=${train:-scratch} # to show that it learns; the one that comes with the clone stands beside it
fi

step "extract: find the nuclei and cut them out"
OMP_NUM_THREADS=1 run python "$here/extract/main.py" "$slides" --out "$out/cells" \
    ${MPP:+--mpp "$MPP"}

step "shards: mix the cells of all slides"
run python "$here/shards/main.py" mix "$out/cells" --out "$out/shards"

encoder="trained=$out/run" encoders=("trained=$out/run" "$shipped")
if [ -z "$train" ]; then
    encoder=$shipped encoders=("$shipped")
    step "train: nothing; $shipped, which comes with the clone, is used as it is (TRAIN=scratch trains)"
elif [ "$train" = scratch ]; then
    step "train: MoCo v3, ViT-Ti/8, a few minutes"
    recipe=(--encoder vit_ti8 --batch 64 --epoch-samples 38400 --lr 4e-3 --momentum 0.95)
else
    step "train: MoCo v3, slim ResNet-18 from $train, a few minutes"
    recipe=(--encoder resnet18s --init "$train" --batch 128 --epoch-samples 25600 --lr 1e-3
        --momentum 0.98 --projector-layers 3)
fi
[ -z "$train" ] || OMP_NUM_THREADS=$((cores / ranks)) run torchrun --nproc-per-node="$ranks" \
    "$here/train/main.py" --data "$out/shards" --out "$out/run" --policy light --epochs 1 \
    --warmup-epochs 0.1 --hidden 1024 --workers 0 "${recipe[@]}"

if [ ${#benchmark[@]} -gt 0 ]; then
    step "evaluate: probe the known kinds, beside baselines"
    run python "$here/evaluate/main.py" probe --encoder pixels untrained "${encoders[@]}" \
        --benchmark "${benchmark[@]}" --out "$out/results" --precision bf16
    run python "$here/evaluate/main.py" map --encoder "$encoder" \
        --benchmark "${benchmark[@]}" --out "$out/results" --precision bf16
fi
if [ -z "${SLIDES:-}" ]; then
    step "evaluate: a classifier of the known kinds by $shipped, on a slide that nothing was trained on"
    OMP_NUM_THREADS=1 run python "$here/extract/main.py" "$out/painted/painted-nuclei/HELDOUT-0005.tiff" \
        --out "$out/cells-held-out"
    run python "$here/evaluate/main.py" fit --encoder "$shipped" --benchmark "${benchmark[@]}" \
        --without HELDOUT-0005 --out "$out/classifier" --work "$out/results" --precision bf16 \
        --bootstrap 0
    run python "$here/evaluate/main.py" apply "$out/cells-held-out" --encoder "$shipped" \
        --classifier "$out/classifier" --truth "${benchmark[@]}" --formats geojson \
        --out "$out/results" --precision bf16
fi
step "evaluate: a map and a contact sheet of all cells"
run python "$here/evaluate/main.py" map --encoder "$encoder" --shards "$out/shards" \
    --html --out "$out/results" --precision bf16
run python "$here/evaluate/main.py" report "$out/results" --shards "$out/shards" \
    --out "$out/report.html"

step "done. Look at"
[ ${#benchmark[@]} -eq 0 ] || echo "  table          $out/results/table.md"
echo "  everything     $out/report.html"
