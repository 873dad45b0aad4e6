"""Evidence of peers, links, the mesh and what can be reached from outside."""

from __future__ import annotations

import enum
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerEvidence:
    """What one peer, by its address and port (0: any), had of TCP segments and attempts to connect.

    `errno` is the commonest of the failed attempts (0: none), `process_name` who made them, where one did.
    """

    address: str
    port: int
    window_s: float
    segments: int
    retransmitted: int
    resets: int
    attempts: int
    failed: int
    errno: int
    process_name: str = ""


class LinkCounter(enum.StrEnum):
    """A counter of a network link or of its RDMA port (sysfs names)."""

    UNKNOWN = "unknown"
    CARRIER_CHANGES = "carrier_changes"
    LINK_DOWNED = "link_downed"
    SYMBOL_ERROR = "symbol_error"
    PORT_RCV_ERRORS = "port_rcv_errors"
    LOCAL_ACK_TIMEOUT = "local_ack_timeout_err"
    RNR_NAK_RETRY = "rnr_nak_retry_err"
    PACKET_SEQ = "packet_seq_err"
    OUT_OF_SEQUENCE = "out_of_sequence"
    ADAPTIVE_RETRANSMISSION = "roce_adp_retrans"


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkEvidence:
    """How much one counter of a link rose in `window_s` seconds; `up` is None where it is unknown."""

    device: str
    port: int
    counter: LinkCounter
    rise: int
    window_s: float
    up: bool | None


class MeshState(enum.StrEnum):
    """The state that the mesh's daemon gives itself (Tailscale, ipn.State)."""

    UNKNOWN = "unknown"
    NO_DAEMON = "no_daemon"
    NO_STATE = "no_state"
    NEEDS_LOGIN = "needs_login"
    NEEDS_MACHINE_AUTH = "needs_machine_auth"
    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"


class MeshWarning(enum.StrEnum):
    """What the daemon warns of, by its own codes; those that we do not know are OTHER."""

    UNKNOWN = "unknown"
    OTHER = "other"
    LOGIN_STATE = "login-state"
    NOT_IN_MAP_POLL = "not-in-map-poll"
    NO_DERP_HOME = "no-derp-home"
    NO_DERP_CONNECTION = "no-derp-connection"
    DERP_TIMED_OUT = "derp-timed-out"
    NO_UDP4_BIND = "no-udp4-bind"
    NETWORK_STATUS = "network-status"
    WARMING_UP = "warming-up"
    DNS_FORWARD_FAILING = "dns-forward-failing"
    RESOLV_CONF_OVERWRITTEN = "resolv-conf-overwritten"
    STATEFUL_FILTERING = "docker-stateful-filtering"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshEvidence:
    """How the mesh's daemon sees itself and its peers. Seconds until the key expires, None without an end."""

    state: MeshState
    online: bool | None
    key_expires_in_s: float | None
    warnings: tuple[MeshWarning, ...]
    peers_active: int
    peers_relayed: int


class ControlPlane(enum.StrEnum):
    """A service that lets whoever reaches it command the host, or read all it holds."""

    UNKNOWN = "unknown"
    RAY_DASHBOARD = "ray_dashboard"
    RAY_GCS = "ray_gcs"
    RAY_CLIENT = "ray_client"
    DOCKER_API = "docker_api"
    KUBELET = "kubelet"
    ETCD = "etcd"
    OPENCLAW = "openclaw"
    POSTGRESQL = "postgresql"
    REDIS = "redis"
    OLLAMA = "ollama"
    JUPYTER = "jupyter"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlaneEvidence:
    """A control plane that listens beyond the mesh, and who from outside of it is connected."""

    plane: ControlPlane
    address: str
    port: int
    published: bool
    outside_peers: int
    outside_peer: str
