"""Lines of what spreads one model over several processes and hosts: Ray and NCCL.

Ray writes most of them to files of its session (gcs_server.out on the head, raylet.out on each node), and the
driver's own output repeats those that matter to it. The forms of Ray were read off Ray 2.60 while its workers
were stopped, killed and asked to leave.
"""

from __future__ import annotations

from typing import Final

from probes.logs.pattern import Pattern
from probes.origin import ServerKind

_RAY = ServerKind.RAY
_IPV4: Final = r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}"

CLUSTER_PATTERNS: Final = (
    Pattern(
        "nccl.collective_timeout",
        "a collective operation did not end in time",
        "PyTorch, torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp",
        "Watchdog caught collective operation timeout",
        r"Watchdog caught collective operation timeout",
    ),
    Pattern(
        "nccl.connection_closed",
        "the other rank closed its connection",
        "NCCL, src/misc/socket.cc",
        "Connection closed by remote peer",
        r"socketProgress: Connection closed by remote peer",
    ),
    Pattern(
        "nccl.ib_error",
        "an RDMA operation ended with an error; 12 is a timeout, 129 the vendor's word for it",
        "NCCL, src/transport/net_ib",
        "Got completion from peer",
        r"NET/IB.{0,5}: Got completion from peer .{1,80}?(?:status=(?:[A-Z_]{1,40}\()?|error )"
        r"(?P<status>[0-9]{1,4})(?:.{1,80}?vendor[ _]err[ =](?P<vendor>[0-9]{1,6}))?",
    ),
    Pattern(
        "nccl.no_interface",
        "no network interface to meet the other ranks on",
        "NCCL, src/bootstrap.cc",
        "no socket interface found",
        r"Bootstrap : no socket interface found",
    ),
    Pattern(
        "nccl.remote_exited",
        "another rank's process ended, or the network did",
        "NCCL, src/enqueue.cc (ncclRemoteError)",
        "remote process exited or there was a network error",
        r"remote process exited or there was a network error",
    ),
    Pattern(
        "nccl.shm_failed",
        "shared memory could not be had; the size asked for and the errno",
        "NCCL, src/misc/shmutils.cc",
        "Error while creating shared memory segment",
        r"Error while creating shared memory segment .{1,120}?\(size (?P<size>[0-9]{1,15})\)"
        r"(?:, error: .{1,60}? \((?P<errno>[0-9]{1,4})\))?",
    ),
    Pattern(
        "nccl.system_error",
        "a call to the system or to a library failed",
        "NCCL, src/init.cc (ncclSystemError)",
        "unhandled system error",
        r"unhandled system error",
    ),
    Pattern(
        "ray.gcs_unreachable",
        "a node cannot reach the cluster's head",
        "Ray, src/ray/rpc/rpc_client.h; src/ray/gcs_rpc_client/gcs_client.cc",
        "GCS",
        rf"Failed to connect to GCS at address (?P<address>{_IPV4})"
        r"|Failed to get cluster ID from GCS server|Failed to connect to GCS within (?P<seconds>[0-9]{1,6})",
        addresses=("address",),
        server=_RAY,
    ),
    Pattern(
        "ray.health_check_failed",
        "a node did not answer a health check: how many are left, and gRPC's code (4 late, 14 refused)",
        "Ray, src/ray/gcs/gcs_health_check_manager.cc",
        "Health check failed for node",
        r"Health check failed for node [0-9a-f]{1,64}, remaining checks (?P<remaining>[0-9]{1,4}), "
        r"status (?P<status>[0-9]{1,3})",
        server=_RAY,
    ),
    Pattern(
        "ray.marked_dead_itself",
        "this node ends itself, because the head took it for dead",
        "Ray, src/ray/raylet/node_manager.cc",
        "mistakenly been marked as dead",
        r"mistakenly been marked as dead by the GCS: GCS failed to check the health of this node for "
        r"(?P<times>[0-9]{1,6}) times",
        server=_RAY,
    ),
    Pattern(
        "ray.node_dead",
        "the head took a node for dead",
        "Ray, src/ray/gcs/gcs_node_manager.cc",
        "marked dead because the detector has missed too many heartbeats",
        rf"The node with node id: [0-9a-f]{{1,64}}+(?: and address: (?P<address>{_IPV4}))?[^\n]{{0,300}}? "
        r"has been marked dead because the detector has missed too many heartbeats",
        addresses=("address",),
        server=_RAY,
    ),
    Pattern(
        "ray.node_ended",
        "the head let a node go, and whether that was expected",
        "Ray, src/ray/gcs/gcs_node_manager.cc; rpc::NodeDeathInfo",
        "death reason = ",
        r"death reason = (?P<reason>[A-Z_]{1,60}), death message",
        words=(
            (
                "reason",
                (
                    "UNSPECIFIED",
                    "EXPECTED_TERMINATION",
                    "UNEXPECTED_TERMINATION",
                    "AUTOSCALER_DRAIN_PREEMPTED",
                    "AUTOSCALER_DRAIN_IDLE",
                ),
            ),
        ),
        server=_RAY,
    ),
    Pattern(
        "ray.node_registered",
        "a node has joined",
        "Ray, src/ray/gcs/gcs_node_manager.cc",
        "Registering new node",
        rf"Registering new node\.[^\n]{{0,200}}? node_address=(?P<address>{_IPV4})",
        addresses=("address",),
        server=_RAY,
    ),
    Pattern(
        "ray.raylet_started",
        "this node's own part of the cluster has started",
        "Ray, src/ray/raylet/node_manager.cc",
        "Raylet consists of node_manager",
        r"Raylet of id, [0-9a-f]{1,64} started",
        server=_RAY,
    ),
    Pattern(
        "ray.workers_killed_for_memory",
        "Ray itself killed workers because the node ran low on memory",
        "Ray, src/ray/raylet/node_manager.cc; docs, Out-Of-Memory Prevention",
        "killed",
        r"(?P<count>[0-9]{1,6}) (?:Workers \(tasks / actors\) killed due to memory pressure|"
        r"worker\(s\) were killed due to the node running low on memory)",
        server=_RAY,
    ),
)
"""Sorted by id."""
