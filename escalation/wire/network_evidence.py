"""The evidence of peers, links, the mesh and control planes, between model and message."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, assert_never

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
from escalation.wire import escalation_pb2 as pb
from escalation.wire.fields import (
    Names,
    bounded,
    entries,
    finite,
    fit,
    fit_float,
    fit_list,
    fit_measure,
    fit_port,
    fit_u32,
    fit_u64,
    measure,
    port,
    text,
)

NetworkEvidence = PeerEvidence | LinkEvidence | MeshEvidence | ControlPlaneEvidence

_LINK_COUNTER: Final = Names(LinkCounter, pb.LinkCounter)
_MESH_STATE: Final = Names(MeshState, pb.MeshState)
_MESH_WARNING: Final = Names(MeshWarning, pb.MeshWarning)
_CONTROL_PLANE: Final = Names(ControlPlane, pb.ControlPlane)


def message(evidence: NetworkEvidence) -> pb.Evidence:
    """Return `evidence` as a message."""
    match evidence:
        case PeerEvidence():
            return pb.Evidence(
                peer=pb.PeerEvidence(
                    address=fit("PeerEvidence.address", evidence.address),
                    port=fit_port(evidence.port),
                    window_s=fit_float(evidence.window_s),
                    segments=fit_u64(evidence.segments),
                    retransmitted=fit_u64(evidence.retransmitted),
                    resets=fit_u64(evidence.resets),
                    attempts=fit_u64(evidence.attempts),
                    failed=fit_u64(evidence.failed),
                    errno=fit_u32(evidence.errno),
                    process_name=fit("PeerEvidence.process_name", evidence.process_name),
                )
            )
        case LinkEvidence():
            return pb.Evidence(
                link=pb.LinkEvidence(
                    device=fit("LinkEvidence.device", evidence.device),
                    port=fit_port(evidence.port),
                    counter=_LINK_COUNTER.number(evidence.counter),
                    rise=fit_u64(evidence.rise),
                    window_s=fit_float(evidence.window_s),
                    up=evidence.up,
                )
            )
        case MeshEvidence():
            return pb.Evidence(
                mesh=pb.MeshEvidence(
                    state=_MESH_STATE.number(evidence.state),
                    online=evidence.online,
                    key_expires_in_s=fit_measure(evidence.key_expires_in_s),
                    warnings=[
                        _MESH_WARNING.number(each)
                        for each in fit_list("MeshEvidence.warnings", evidence.warnings)
                    ],
                    peers_active=fit_u64(evidence.peers_active),
                    peers_relayed=fit_u64(evidence.peers_relayed),
                )
            )
        case ControlPlaneEvidence():
            return pb.Evidence(
                control_plane=pb.ControlPlaneEvidence(
                    plane=_CONTROL_PLANE.number(evidence.plane),
                    address=fit("ControlPlaneEvidence.address", evidence.address),
                    port=fit_port(evidence.port),
                    published=evidence.published,
                    outside_peers=fit_u64(evidence.outside_peers),
                    outside_peer=fit("ControlPlaneEvidence.outside_peer", evidence.outside_peer),
                )
            )
        case _:
            assert_never(evidence)


def _peer(message: pb.PeerEvidence) -> PeerEvidence:
    return PeerEvidence(
        address=text("PeerEvidence.address", message.address),
        port=port("PeerEvidence.port", message.port),
        window_s=finite("PeerEvidence.window_s", message.window_s),
        segments=bounded("PeerEvidence.segments", message.segments),
        retransmitted=bounded("PeerEvidence.retransmitted", message.retransmitted),
        resets=bounded("PeerEvidence.resets", message.resets),
        attempts=bounded("PeerEvidence.attempts", message.attempts),
        failed=bounded("PeerEvidence.failed", message.failed),
        errno=message.errno,
        process_name=text("PeerEvidence.process_name", message.process_name),
    )


def _link(message: pb.LinkEvidence) -> LinkEvidence:
    has = message.HasField
    return LinkEvidence(
        device=text("LinkEvidence.device", message.device),
        port=port("LinkEvidence.port", message.port),
        counter=_LINK_COUNTER.member(message.counter),
        rise=bounded("LinkEvidence.rise", message.rise),
        window_s=finite("LinkEvidence.window_s", message.window_s),
        up=message.up if has("up") else None,
    )


def _mesh(message: pb.MeshEvidence) -> MeshEvidence:
    has = message.HasField
    entries("MeshEvidence.warnings", len(message.warnings))
    return MeshEvidence(
        state=_MESH_STATE.member(message.state),
        online=message.online if has("online") else None,
        key_expires_in_s=measure("MeshEvidence.key_expires_in_s", message),
        warnings=tuple([_MESH_WARNING.member(each) for each in message.warnings]),
        peers_active=bounded("MeshEvidence.peers_active", message.peers_active),
        peers_relayed=bounded("MeshEvidence.peers_relayed", message.peers_relayed),
    )


def _control_plane(message: pb.ControlPlaneEvidence) -> ControlPlaneEvidence:
    return ControlPlaneEvidence(
        plane=_CONTROL_PLANE.member(message.plane),
        address=text("ControlPlaneEvidence.address", message.address),
        port=port("ControlPlaneEvidence.port", message.port),
        published=message.published,
        outside_peers=bounded("ControlPlaneEvidence.outside_peers", message.outside_peers),
        outside_peer=text("ControlPlaneEvidence.outside_peer", message.outside_peer),
    )


READERS: Final[Mapping[str, Callable[[pb.Evidence], NetworkEvidence]]] = MappingProxyType(
    {
        "peer": lambda message: _peer(message.peer),
        "link": lambda message: _link(message.link),
        "mesh": lambda message: _mesh(message.mesh),
        "control_plane": lambda message: _control_plane(message.control_plane),
    }
)
"""Which of the evidence a message holds -> how it is read; raises WireError."""
