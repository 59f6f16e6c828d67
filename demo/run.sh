#!/usr/bin/env bash
# The whole pipeline, top to bottom: slides -> cells -> shards -> encoder -> tables, maps, a report.
#
#   make demo                     on painted slides whose nuclei are known
#   make demo SLIDES=my/slides    on your own: a folder, a CSV (path[,slide_id,project,mpp]), a slide
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
fi

step "extract: find the nuclei and cut them out"
OMP_NUM_THREADS=1 run python "$here/extract/main.py" "$slides" --out "$out/cells" \
    ${MPP:+--mpp "$MPP"}

step "shards: mix the cells of all slides"
run python "$here/shards/main.py" mix "$out/cells" --out "$out/shards"

step "train: MoCo v3, ViT-Ti/8, a few minutes"
OMP_NUM_THREADS=$((cores / ranks)) run torchrun --nproc-per-node="$ranks" "$here/train/main.py" \
    --data "$out/shards" --out "$out/run" --encoder vit_ti8 --policy light \
    --batch 64 --epochs 1 --epoch-samples 38400 --warmup-epochs 0.1 --lr 4e-3 --momentum 0.95 \
    --hidden 1024 --workers 0

if [ ${#benchmark[@]} -gt 0 ]; then
    step "evaluate: probe the known kinds, beside baselines"
    run python "$here/evaluate/main.py" probe --encoder pixels untrained "trained=$out/run" \
        --benchmark "${benchmark[@]}" --out "$out/results" --precision bf16
    run python "$here/evaluate/main.py" map --encoder "trained=$out/run" \
        --benchmark "${benchmark[@]}" --out "$out/results" --precision bf16
fi
if [ -z "${SLIDES:-}" ]; then
    step "evaluate: a classifier of the known kinds, on a slide that nothing was trained on"
    OMP_NUM_THREADS=1 run python "$here/extract/main.py" "$out/painted/painted-nuclei/HELDOUT-0005.tiff" \
        --out "$out/cells-held-out"
    run python "$here/evaluate/main.py" fit --encoder "trained=$out/run" --benchmark "${benchmark[@]}" \
        --without HELDOUT-0005 --out "$out/classifier" --work "$out/results" --precision bf16 \
        --bootstrap 0
    run python "$here/evaluate/main.py" apply "$out/cells-held-out" --encoder "trained=$out/run" \
        --classifier "$out/classifier" --truth "${benchmark[@]}" --formats geojson \
        --out "$out/results" --precision bf16
fi
step "evaluate: a map and a contact sheet of the cells that were trained on"
run python "$here/evaluate/main.py" map --encoder "trained=$out/run" --shards "$out/shards" \
    --html --out "$out/results" --precision bf16
run python "$here/evaluate/main.py" report "$out/results" --shards "$out/shards" \
    --out "$out/report.html"

step "done. Look at"
[ ${#benchmark[@]} -eq 0 ] || echo "  table          $out/results/table.md"
echo "  everything     $out/report.html"
