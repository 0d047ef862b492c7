#!/usr/bin/env bash
# Runs a Slurm cluster on one machine: a controller and two nodes, each with its own host name, network address,
# processes and shared memory, and with two GPUs that exist only in Slurm's configuration. cluster.py calls it as
#
#   unshare --net --uts --ipc --mount --pid --fork --kill-child --mount-proc cluster.sh FOLDER
#
# so that it is the first process of its process namespace, and everything started here ends with it.
set -euo pipefail

folder=$1
cores=$(nproc)
memory=$(awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo)

hostname controller
printf '127.0.0.1 localhost\n10.77.0.1 controller\n10.77.0.11 node1\n10.77.0.12 node2\n' >"$folder/hosts"
mount --bind "$folder/hosts" /etc/hosts
ip link set lo up
ip link add switch type bridge
ip addr add 10.77.0.1/24 dev switch
ip link set switch up

cat >"$folder/slurm.conf" <<CONF
ClusterName=relift
SlurmctldHost=controller(10.77.0.1)
SlurmUser=root
AuthType=auth/munge
# A requeued job waits for as long as its credential is valid.
AuthInfo=socket=$folder/munge.socket,cred_expire=10
StateSaveLocation=$folder/state
SlurmctldPidFile=$folder/slurmctld.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdSpoolDir=$folder/spool-%n
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmdLogFile=$folder/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
MpiDefault=none
ReturnToService=2
KillWait=15
MessageTimeout=60
NodeName=node1 NodeAddr=10.77.0.11 CPUs=$cores RealMemory=$memory Gres=gpu:2
NodeName=node2 NodeAddr=10.77.0.12 CPUs=$cores RealMemory=$memory Gres=gpu:2
PartitionName=all Nodes=node1,node2 Default=YES State=UP
CONF
# Slurm requires a device for a GPU; nothing opens these.
touch "$folder/gpu0" "$folder/gpu1"
echo "Name=gpu File=$folder/gpu[0-1]" >"$folder/gres.conf"
mkdir -p "$folder/state" "$folder/spool-node1" "$folder/spool-node2"
export SLURM_CONF=$folder/slurm.conf

(umask 077 && head -c 128 /dev/urandom >"$folder/munge.key")
munged --force --foreground --socket="$folder/munge.socket" --key-file="$folder/munge.key" \
    --pid-file="$folder/munged.pid" --seed-file="$folder/munged.seed" --log-file="$folder/munged.log" &
while [[ ! -S $folder/munge.socket ]]; do sleep 0.1; done
slurmctld -D &

for i in 1 2; do
    # shellcheck disable=SC2016  # expanded by the inner shell
    unshare --net --uts --ipc --mount --pid --fork --kill-child --mount-proc bash -euo pipefail -c '
        hostname "$1"
        mount -t tmpfs -o size=4g tmpfs /dev/shm
        touch "$3"
        until ip link show eth0 &>/dev/null; do sleep 0.1; done
        ip link set lo up
        ip addr add "$2/24" dev eth0
        ip link set eth0 up
        # not exec: the first process of a namespace must collect orphans
        slurmd -D' node "node$i" "10.77.0.1$i" "$folder/node$i.waits" &
    until [[ -e $folder/node$i.waits ]]; do sleep 0.1; done
    ip link add "port$i" type veth peer name eth0 netns "$!"
    ip link set "port$i" master switch up
done
wait
