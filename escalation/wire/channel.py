"""How an agent speaks gRPC to its orchestrator: the call's name, and the options of the channel.

Messages pass as bytes: the codec reads them. What gRPC cannot parse it would refuse as INTERNAL, and a sender
could not tell a report that is at fault from a server that is.
"""

from __future__ import annotations

from typing import Final

SERVICE: Final = "nanobot.v1.EscalationService"
METHOD: Final = "Escalate"
CALL: Final = f"/{SERVICE}/{METHOD}"

_ACK_BYTES: Final = 1024

CLIENT_OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    ("grpc.keepalive_time_ms", 60_000),  # a server that allows pings less often would hang up
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.initial_reconnect_backoff_ms", 1_000),  # gRPC multiplies by 1.6 and adds a jitter of 20 %
    ("grpc.min_reconnect_backoff_ms", 10_000),  # despite its name: how long one attempt may take
    ("grpc.max_reconnect_backoff_ms", 60_000),
    ("grpc.max_receive_message_length", _ACK_BYTES),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),  # a proxy in the environment is not for the mesh
    ("grpc.use_local_subchannel_pool", 1),  # a new certificate is shown on a new connection
)
