"""Evidence of peers, links, the mesh and control planes as short facts.

What came from a host passes `shown` before it stands in one.
"""

from __future__ import annotations

from typing import assert_never

from escalation.inert import shown
from escalation.model import (
    ControlPlane,
    ControlPlaneEvidence,
    LinkCounter,
    LinkEvidence,
    MeshEvidence,
    MeshState,
    MeshWarning,
    PeerEvidence,
)
from escalation.wording.quantities import LABEL_LIMIT, counted, duration, error_name, process


def peer_fact(evidence: PeerEvidence) -> str:
    """Return what one peer had of segments and attempts to connect."""
    parts = []
    if evidence.segments or evidence.retransmitted:
        share = 100 * evidence.retransmitted / max(evidence.segments, evidence.retransmitted)
        segments = counted(evidence.segments, "segment")
        parts.append(f"{evidence.retransmitted} of {segments} sent again ({share:.2g} %)")
    if evidence.attempts or evidence.failed:
        error = f", mostly {error_name(evidence.errno)}" if evidence.errno else ""
        attempts = counted(evidence.attempts, "attempt")
        parts.append(f"{evidence.failed} of {attempts} to connect failed{error}")
    if evidence.resets:
        parts.append(f"{counted(evidence.resets, 'connection')} reset")
    what = ", ".join(parts) or "nothing was sent"
    by = f", asked by {process(evidence.process_name, None)}" if evidence.process_name else ""
    return f"{place(evidence.address, evidence.port)}{by}: {what}, within {duration(evidence.window_s)}"


def link_fact(evidence: LinkEvidence) -> str:
    """Return how a counter of a link rose."""
    device = shown(evidence.device, limit=LABEL_LIMIT) or "a link without a name"
    port = f" port {evidence.port}" if evidence.port else ""
    state = "its state is unknown" if evidence.up is None else "it is up" if evidence.up else "it is down"
    rise = f"{counter_words(evidence.counter)} rose by {evidence.rise}"
    return f"{device}{port}: {rise} within {duration(evidence.window_s)}; {state}"


def mesh_fact(evidence: MeshEvidence) -> str:
    """Return how the mesh's daemon sees itself."""
    parts = [f"the mesh's daemon {mesh_words(evidence.state)}"]
    if evidence.online is not None:
        sees = "sees" if evidence.online else "does not see"
        parts.append(f"the control server {sees} it")
    if evidence.key_expires_in_s is not None:
        left = evidence.key_expires_in_s
        parts.append(f"its key expires in {duration(left)}" if left > 0 else "its key has expired")
    if evidence.warnings:
        parts.append(f"it warns: {', '.join(warning_words(each) for each in evidence.warnings)}")
    if evidence.peers_active:
        parts.append(f"{evidence.peers_relayed} of {counted(evidence.peers_active, 'active peer')} relayed")
    return ", ".join(parts)


def control_plane_fact(evidence: ControlPlaneEvidence) -> str:
    """Return which control plane can be reached, and who from outside is there."""
    by = ", published by the container engine" if evidence.published else ""
    peers = "nobody from outside the mesh is connected"
    if evidence.outside_peers:
        first = shown(evidence.outside_peer, limit=LABEL_LIMIT)
        which = f", one of them {first}" if first else ""
        peers = f"{counted(evidence.outside_peers, 'peer')} from outside the mesh connected{which}"
    return f"{plane_name(evidence.plane)} listens on {place(evidence.address, evidence.port)}{by}; {peers}"


def place(address: str, port: int) -> str:
    """Return an address with its port, where it has one."""
    name = shown(address, limit=LABEL_LIMIT) or "an unknown address"
    if not port:
        return name
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def counter_words(counter: LinkCounter) -> str:
    """Return what a counter of a link counts."""
    match counter:
        case LinkCounter.CARRIER_CHANGES:
            return "changes of the carrier"
        case LinkCounter.LINK_DOWNED:
            return "losses of the link"
        case LinkCounter.SYMBOL_ERROR:
            return "symbol errors"
        case LinkCounter.PORT_RCV_ERRORS:
            return "errors of reception"
        case LinkCounter.LOCAL_ACK_TIMEOUT:
            return "acknowledgements that timed out"
        case LinkCounter.RNR_NAK_RETRY:
            return "retries at a receiver that was not ready"
        case LinkCounter.PACKET_SEQ:
            return "errors of packet sequence"
        case LinkCounter.OUT_OF_SEQUENCE:
            return "packets out of sequence"
        case LinkCounter.ADAPTIVE_RETRANSMISSION:
            return "adaptive retransmissions"
        case LinkCounter.UNKNOWN:
            return "a counter that this orchestrator does not know"
        case _:
            assert_never(counter)


def mesh_words(state: MeshState) -> str:
    """Return the state of the mesh's daemon."""
    match state:
        case MeshState.NO_DAEMON:
            return "does not run"
        case MeshState.NO_STATE:
            return "has no state yet"
        case MeshState.NEEDS_LOGIN:
            return "needs a login"
        case MeshState.NEEDS_MACHINE_AUTH:
            return "waits for this machine to be approved"
        case MeshState.STOPPED:
            return "is stopped"
        case MeshState.STARTING:
            return "is starting"
        case MeshState.RUNNING:
            return "is running"
        case MeshState.UNKNOWN:
            return "is in an unknown state"
        case _:
            assert_never(state)


def warning_words(warning: MeshWarning) -> str:  # noqa: C901, PLR0912 -- one case per warning
    """Return what the mesh's daemon warns of."""
    match warning:
        case MeshWarning.LOGIN_STATE:
            return "it is logged out"
        case MeshWarning.NOT_IN_MAP_POLL:
            return "no contact with the control server"
        case MeshWarning.NO_DERP_HOME:
            return "no home relay"
        case MeshWarning.NO_DERP_CONNECTION:
            return "no connection to its relay"
        case MeshWarning.DERP_TIMED_OUT:
            return "its relay does not answer"
        case MeshWarning.NO_UDP4_BIND:
            return "no UDP socket: connections may be slow"
        case MeshWarning.NETWORK_STATUS:
            return "the network is down"
        case MeshWarning.WARMING_UP:
            return "it is warming up"
        case MeshWarning.DNS_FORWARD_FAILING:
            return "DNS servers do not answer"
        case MeshWarning.RESOLV_CONF_OVERWRITTEN:
            return "something overwrote /etc/resolv.conf"
        case MeshWarning.STATEFUL_FILTERING:
            return "Docker and stateful filtering disagree"
        case MeshWarning.OTHER:
            return "something else"
        case MeshWarning.UNKNOWN:
            return "something that this orchestrator does not know"
        case _:
            assert_never(warning)


def plane_name(plane: ControlPlane) -> str:  # noqa: C901, PLR0912 -- one case per plane
    """Return the name of a control plane."""
    match plane:
        case ControlPlane.RAY_DASHBOARD:
            return "Ray's dashboard and job server"
        case ControlPlane.RAY_GCS:
            return "Ray's control store (GCS)"
        case ControlPlane.RAY_CLIENT:
            return "Ray's client server"
        case ControlPlane.DOCKER_API:
            return "Docker's API"
        case ControlPlane.KUBELET:
            return "the kubelet"
        case ControlPlane.ETCD:
            return "etcd"
        case ControlPlane.OPENCLAW:
            return "the OpenClaw gateway"
        case ControlPlane.POSTGRESQL:
            return "PostgreSQL"
        case ControlPlane.REDIS:
            return "Redis"
        case ControlPlane.OLLAMA:
            return "Ollama"
        case ControlPlane.JUPYTER:
            return "Jupyter"
        case ControlPlane.OTHER:
            return "another control plane"
        case ControlPlane.UNKNOWN:
            return "a control plane that this orchestrator does not know"
        case _:
            assert_never(plane)
