#!/usr/bin/env bash
# A real SLURM of two nodes on this machine, for the tests: no systemd, no cgroups, all on loopback.
#
#   tests/slurm/cluster.sh install          # Debian's packages
#   tests/slurm/cluster.sh up DIR PORT      # daemons with their state in DIR; PORT to PORT + 2
#   tests/slurm/cluster.sh down DIR         # stop them, and the jobs
#
# `up` starts what is not running, so it also revives a slurmctld that was killed. Each node has 8
# CPUs and 2 GPUs, neither of them real, and sees its own name as the host's. Partitions: gpu, cpu, and
# high, which preempts both. SLURM_CONF=DIR/slurm.conf makes the clients speak to it.
# shellcheck disable=SC2016 # expanded by the shell that they are handed to
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin LC_ALL=C
command=$1 dir=${2:-} port=${3:-}

# alive PIDFILE PROGRAM: does the pid in the file run that program? It may have been given to another.
alive() {
    [ -s "$1" ] && [[ $(basename "$(readlink "/proc/$(cat "$1")/exe")") == "$2"* ]]
}
wait_for() { # wait_for COMMAND…: for 30 s
    for ((i = 0; i < 300; i++)); do
        "$@" &>/dev/null && return
        sleep 0.1
    done
    echo "cluster.sh: gave up waiting for: $*; the logs are in $dir/log" >&2
    return 1
}

install_packages() {
    command -v slurmctld slurmd sbatch munged >/dev/null && return
    # Installed daemons must not start by themselves.
    local policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod +x $policy
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends slurmctld slurmd slurm-client munge
}

configure() {
    mkdir -p "$dir"/{run,log,state,spool/node1,spool/node2,munge}
    chmod 755 "$dir"
    chmod 700 "$dir/munge"
    (umask 077 && head -c 1024 /dev/urandom >"$dir/munge/key")
    for gpu in 0 1; do mknod "$dir/run/gpu$gpu" c 1 3; done
    echo "NodeName=node[1-2] Name=gpu File=$dir/run/gpu[0-1]" >"$dir/gres.conf"
    { cat /etc/hosts && echo "127.0.0.1 node1 node2"; } >"$dir/hosts"
    cat >"$dir/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$dir/run/munge.socket,cred_expire=5
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
SlurmctldPidFile=$dir/run/slurmctld.pid
SlurmdPidFile=$dir/run/%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=5
ReturnToService=2
SlurmctldTimeout=30
SlurmdTimeout=60
SlurmdParameters=config_overrides
GresTypes=gpu
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$dir/log/jobs.log
NodeName=node1 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=8 RealMemory=64000 Gres=gpu:2
NodeName=node2 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=8 RealMemory=64000 Gres=gpu:2
PartitionName=cpu Nodes=node[1-2] Default=YES State=UP PriorityTier=1
PartitionName=gpu Nodes=node[1-2] State=UP PriorityTier=1
PartitionName=high Nodes=node[1-2] State=UP PriorityTier=10 PreemptMode=OFF
CONF
}

up() {
    [ -e "$dir/slurm.conf" ] || configure
    export SLURM_CONF=$dir/slurm.conf
    if ! alive "$dir/run/munged.pid" munged; then
        munged --key-file="$dir/munge/key" --socket="$dir/run/munge.socket" --num-threads=2 \
            --pid-file="$dir/run/munged.pid" --log-file="$dir/munge/log" --seed-file="$dir/munge/seed"
    fi
    wait_for munge -n --socket="$dir/run/munge.socket"
    alive "$dir/run/slurmctld.pid" slurmctld || slurmctld
    wait_for scontrol ping
    for node in node1 node2; do
        alive "$dir/run/$node.pid" slurmd || unshare --mount --uts sh -c \
            'mount --bind "$1/hosts" /etc/hosts && hostname "$2" && exec slurmd -N "$2"' sh "$dir" $node
    done
    wait_for eval '[ "$(sinfo -h -N -p cpu -o %t | grep -Ec "^(idle|mix|alloc|comp)$")" = 2 ]'
}

stop() { # stop PIDFILE PROGRAM
    alive "$1" "$2" || return 0
    kill "$(cat "$1")"
    for ((i = 0; i < 50; i++)); do
        alive "$1" "$2" || return 0
        sleep 0.1
    done
    kill -KILL "$(cat "$1")"
}

down() {
    [ -d "$dir" ] || return 0
    export SLURM_CONF=$dir/slurm.conf
    if alive "$dir/run/slurmctld.pid" slurmctld; then
        timeout 10 scancel --user=root || true
        wait_for eval '[ -z "$(timeout 5 squeue -h)" ]' || true
    fi
    for node in node1 node2; do stop "$dir/run/$node.pid" slurmd; done
    stop "$dir/run/slurmctld.pid" slurmctld
    # What outlived its slurmd: exactly the processes that see this cluster's hosts file.
    for process in /proc/[0-9]*; do
        [ "$process/root/etc/hosts" -ef "$dir/hosts" ] && kill -KILL "${process#/proc/}"
    done 2>/dev/null || true
    stop "$dir/run/munged.pid" munged
}

case $command in
    install) install_packages ;;
    up) up ;;
    down) down ;;
esac
