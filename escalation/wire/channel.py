"""How both ends speak gRPC: the call's name, and the options that they have to agree on.

Messages pass as bytes: the codec reads them. What gRPC cannot parse it would refuse as INTERNAL, and a sender
could not tell a report that is at fault from a server that is.
"""

from __future__ import annotations

from typing import Final

from escalation.wire.limits import BATCH_BYTES

SERVICE: Final = "nanobot.v1.EscalationService"
METHOD: Final = "Escalate"
CALL: Final = f"/{SERVICE}/{METHOD}"

_KEEPALIVE_MS: Final = 60_000
_ACK_BYTES: Final = 1024

CLIENT_OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.initial_reconnect_backoff_ms", 1_000),  # gRPC multiplies by 1.6 and adds a jitter of 20 %
    ("grpc.min_reconnect_backoff_ms", 10_000),  # despite its name: how long one attempt may take
    ("grpc.max_reconnect_backoff_ms", 60_000),
    ("grpc.max_receive_message_length", _ACK_BYTES),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),  # a proxy in the environment is not for the mesh
    ("grpc.use_local_subchannel_pool", 1),  # a new certificate is shown on a new connection
)

SERVER_OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    ("grpc.max_receive_message_length", BATCH_BYTES),
    ("grpc.max_send_message_length", _ACK_BYTES),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", _KEEPALIVE_MS // 2),
    ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.so_reuseport", 0),
)
