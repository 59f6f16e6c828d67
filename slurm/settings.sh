# shellcheck shell=bash disable=SC2034
# The settings of a campaign. Copy this file, fill it in, then
#
#   bash slurm/submit.sh my-settings.sh --dry-run    # check everything, submit nothing
#   bash slurm/submit.sh my-settings.sh              # at any time, as often as you like
#
# It is read by bash. slurm/README.md explains. The numbers are for 10,000 slides on a cluster with
# nodes of 8 GPUs; what a cluster calls its partitions, `sinfo` says.

# The experiment -----------------------------------------------------------------------------------
OUT=/scratch/$USER/lemon           # folder of everything that is made, seen by all nodes
SLIDES=/data/tcga/gdc_manifest.txt # a folder, a CSV (path[,slide_id,project,mpp]), a GDC manifest
SLIDES_FLAGS="--slides-root /data/tcga --sample-sheet /data/tcga/gdc_sample_sheet.tsv"
SEED=0
STAGES="extract mix train evaluate" # the first so many of them

# The site -----------------------------------------------------------------------------------------
ACCOUNT=                           # sbatch --account; empty: your default
GPU_PARTITION=gpu                  # of extract, train, evaluate; or several: gpu,gpu-long; empty:
CPU_PARTITION=cpu                  # of mix and the small jobs          the site's default
GRES=gpu                           # what the site calls a GPU: gpu, gpu:a100, …
SBATCH_FLAGS=                      # more flags for every job: '--qos=long --constraint="a100|h100"'
SETUP=". $HOME/lemon/.venv/bin/activate" # done first in every job: module load …, conda activate …
WRAP=                              # before every command: apptainer exec --nv -B /data lemon.sif

# extract: a GPU array; a task does SLIDES_PER_TASK slides -----------------------------------------
EXTRACT_FLAGS="--cells-per-slide 30000"
SLIDES_PER_TASK=20                 # 10,000 slides: 500 tasks; a stock cluster allows 1,001
EXTRACT_AT_ONCE=40                 # tasks that may run at a time
EXTRACT_GPUS=1                     # a task; 0: on processors, or for --segmenter import
EXTRACT_CPUS=8
EXTRACT_MEMORY=48G
EXTRACT_TIME=12:00:00              # a task that runs into it goes on as long as it gets on
TOLERATED_SLIDES=1%                # failed slides with which the campaign goes on: a number or share

# mix: an array, twice, then the join --------------------------------------------------------------
MIX_PARTS=20
MIX_CPUS=4
MIX_MEMORY=16                      # GB for a part's cells; the jobs ask for 4 more
MIX_TIME=04:00:00
SAMPLES_PER_SHARD=10000

# train: one job over nodes, started again until it is finished ------------------------------------
RUN=lemon                          # its folder is OUT/runs/RUN
TRAIN_FLAGS=                       # of train/main.py; empty: the paper's run
TRAIN_NODES=2
TRAIN_PROCESSES=8                  # a node; one a GPU
TRAIN_GPUS=8                       # a node; 0: train on CPUs
TRAIN_CPUS=64                      # a node
TRAIN_MEMORY=200G                  # a node
TRAIN_TIME=24:00:00
TRAIN_WARNING=300                  # seconds before the limit at which it saves and starts again

# evaluate: an array over checkpoints x benchmarks, then one table and one page --------------------
BENCHMARKS="/data/consep /data/ami-br" # folders; empty: no evaluation
BASELINES="untrained pixels morphology"
EVALUATE_FLAGS=                    # of evaluate/main.py probe
EVALUATE_EVERY=0                   # also the checkpoints of every so many steps; 0: the last only
EVALUATE_GPUS=1
EVALUATE_CPUS=8
EVALUATE_MEMORY=48G
EVALUATE_TIME=04:00:00
