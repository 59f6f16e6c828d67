#!/usr/bin/env bash
# Every table and figure of a run, and the report that shows them: probes, stains, batch effects,
# molecules, maps, compute, composition (the paper's Tables 1, 7, 10-12 and Figures 2-4, 6-8).
#
#   RUN=runs/first CELLS=cells SHARDS=shards OUT=results \
#       BENCHMARKS="benchmarks/consep benchmarks/ami-br" bash evaluate/figures.sh
#   … bash evaluate/figures.sh maps          # one of: probes stains batch molecules maps compute
#                                            # composition report
#
# Run it again after a stop: embeddings and probes that are there are kept. BASELINES names what
# stands beside the run, FLAGS how networks embed (on a GPU leave it empty), BESIDE further
# results folders that the report shows. Composition trains GRID, small networks by TRAIN, on CELLS:
# the defaults are for 30 slides and two cores, and take most of the time; GRID="" leaves it out.
# shellcheck disable=SC2086 # lists of words
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
: "${RUN:?the folder of a run}" "${CELLS:?what extract wrote}" "${SHARDS:?what mix wrote}"
: "${BENCHMARKS:?folders of benchmarks}" "${OUT:?a folder for results}"
flags=${FLAGS---precision bf16}
encoders="${BASELINES-morphology untrained} $RUN"
points=${POINTS:-20000} # cells of CELLS and of a map
grid=${GRID---sizes 1000 3000 10000 --slides 3 9 --projects 3 9 --cells-fixed 600 --repeats 2}
train=${TRAIN:---encoder vit_ti8 --policy light --batch 32 --epochs 1 --epoch-samples 6400 \
    --warmup-epochs 0.1 --momentum 0.95 --lr 8e-3 --hidden 1024 --workers 0}

lemon() { python "$here/evaluate/main.py" "$@"; }

probes() {
    lemon probe --encoder $encoders --benchmark $BENCHMARKS --out "$OUT" $flags
    lemon table "$OUT" --paper --out "$OUT"
}
stains() {
    lemon robustness --encoder $encoders --benchmark $BENCHMARKS --out "$OUT" $flags
    lemon robustness --encoder $encoders --cells "$CELLS" --points "$points" --out "$OUT" $flags
}
each() { # a command on every benchmark, and on the cells
    for benchmark in $BENCHMARKS; do
        lemon "$@" --encoder $encoders --benchmark "$benchmark" --out "$OUT" $flags
    done
    lemon "$@" --encoder $encoders --cells "$CELLS" --points "$points" --out "$OUT" $flags
}
batch() { each batch; }
molecules() { each molecules; }
maps() {
    for source in $(printf -- '--benchmark=%s ' $BENCHMARKS) "--cells=$CELLS"; do
        lemon map --encoder "$RUN" "$source" --points "$points" --html --out "$OUT" $flags
    done
}
compute() { lemon compute "$OUT" --encoder untrained "$RUN" --also vit_s8 h-optimus-0 $flags; }
composition() {
    [ -n "$grid" ] || return 0
    lemon composition "$CELLS" --benchmark $BENCHMARKS $grid --encoders vit_ti8 --train "$train" \
        --probe "$flags --knn 0 --bootstrap 0" --out "$OUT/composition"
}
report() {
    local beside=${BESIDE-}
    [ -d "$OUT/composition" ] && beside+=" $OUT/composition"
    lemon report "$OUT" --shards "$SHARDS" --out "$OUT/report.html" ${beside:+--beside $beside}
}

case ${1:-all} in
all) for part in probes stains batch molecules maps compute composition report; do $part; done ;;
probes | stains | batch | molecules | maps | compute | composition | report) "$1" ;;
*) echo "one of: probes stains batch molecules maps compute composition report" >&2 && exit 2 ;;
esac
