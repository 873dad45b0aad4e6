"""The composition root: builds the orchestrator's parts, starts them in order, and stops them in reverse.

Whatever is started first is stopped last: the store outlives the service, and the service outlives both
listeners, so that what was accepted is committed and acknowledged before anything closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Final

import grpc.aio
import structlog
import uvicorn
from starlette.applications import Starlette

from escalation.server.attention.attention_desk import StoredAttention
from escalation.server.certificates import Certificates
from escalation.server.clock import Clock
from escalation.server.config import Config, address_of
from escalation.server.decision.approval_desk import StoredApprovals
from escalation.server.decision.rule_desk import RuleDesk, StoredRules
from escalation.server.decision.signatures import Signatures
from escalation.server.identity import Identities, IdentityRequired
from escalation.server.incident.incident_desk import StoredIncidents
from escalation.server.ingest import Ingest
from escalation.server.metrics import ServerMetrics
from escalation.server.model_writer import ModelWriter, NoTexts, Texts
from escalation.server.notify.notice_desk import NoticeDesk
from escalation.server.notify.notifier import Notifier
from escalation.server.notify.notifiers.receiver import Receiver
from escalation.server.service import Service
from escalation.server.storage.store import Store
from escalation.server.storage.stores import open_store
from escalation.server.supervision import Supervisor
from escalation.server.web import connections, http
from escalation.server.web.approval_routes import ApprovalRoutes
from escalation.server.web.attention_routes import AttentionRoutes
from escalation.server.web.incident_routes import IncidentRoutes
from escalation.server.web.login.desk import LoginDesk
from escalation.server.web.login.oidc_routes import OidcRoutes
from escalation.server.web.login.passkey_routes import PasskeyRoutes
from escalation.server.web.login.passwords import Passwords
from escalation.server.web.login.person_routes import PersonRoutes
from escalation.server.web.login.routes import LoginRoutes
from escalation.server.web.login.signing_keys import registered
from escalation.server.web.policy_routes import PolicyRoutes
from escalation.server.web.rule_routes import RuleRoutes
from escalation.signing import sshsig
from escalation.signing.approvers import ApproversError
from escalation.signing.sshsig import KeygenError
from escalation.wire import credentials

_STOP_S: Final = 15.0
_DRAIN_S: Final = 2.0

# One agent's batch fits in a megabyte and is refused by name above it; this is where gRPC itself gives up.
_LARGEST_MESSAGE_BYTES: Final = 4 * 1024 * 1024

_GRPC_OPTIONS: Final = (
    ("grpc.max_receive_message_length", _LARGEST_MESSAGE_BYTES),
    ("grpc.max_send_message_length", 64 * 1024),
    ("grpc.max_concurrent_streams", 8),
    ("grpc.max_metadata_size", 16 * 1024),
    # A second process on the port would share its connections silently.
    ("grpc.so_reuseport", 0),
    # What a stream may send ahead is memory here: a fixed window instead of one that grows with the network.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 64 * 1024),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
)

_log = structlog.get_logger("nanobot.orchestrator")


class StartError(Exception):
    """The orchestrator cannot start; the message names what is in the way."""


async def run(config: Config, *, clock: Clock, supervisor: Supervisor, stop: asyncio.Event) -> None:
    """Serve until `stop` is set; raise StartError, CredentialsError or a StoreError when it cannot start."""
    async with contextlib.AsyncExitStack() as parts:
        metrics = ServerMetrics()
        store = open_store(config.store)
        parts.push_async_callback(store.close)
        routing = config.notify.router()
        service = Service(
            store=store,
            clock=clock,
            policy=config.approvals.policy(),
            signatures=_signatures(config, store),
            metrics=metrics,
            silence_factor=config.hosts.silence_factor,
            grace_s=config.hosts.grace_s,
            keep_reports_s=config.store.keep_reports_days * 86_400,
            routing=routing,
            windows=config.maintenance,
        )
        notifier = Notifier(
            store=store,
            clock=clock,
            settings=config.notify,
            receivers=_receivers(config),
            metrics=metrics,
            routing=routing,
        )
        parts.push_async_callback(notifier.close)
        await service.prepare()
        await service.declare(config.topology)
        ticking = await parts.enter_async_context(_running("service", service.run(), stop))
        await parts.enter_async_context(_running("notifier", notifier.run(), stop))
        certificates = Certificates(files=config.grpc.files(), now_s=lambda: clock.wall_ns() / 1e9)
        metrics.ready(service.ready)
        metrics.certificate("agents", certificates.agents)
        metrics.certificate("authority", certificates.authority)
        metrics.certificate("orchestrator", certificates.orchestrator)
        await parts.enter_async_context(_agents(config, service, metrics, certificates))
        texts = await parts.enter_async_context(_texts(config, service, metrics, clock, stop))
        answering = application(
            config,
            store=store,
            service=service,
            notices=notifier,
            metrics=metrics,
            clock=clock,
            texts=texts,
        )
        await parts.enter_async_context(_people(config, answering, metrics, stop))
        supervisor.notify("READY=1")
        _log.info("orchestrator_ready", grpc=config.grpc.listen, http=config.http.listen)
        await stop.wait()
        supervisor.notify("STOPPING=1")
        _log.info("orchestrator_stopping")
        if ticking.done():
            ticking.result()


def application(
    config: Config,
    *,
    store: Store,
    service: Service,
    notices: NoticeDesk,
    metrics: ServerMetrics,
    clock: Clock,
    login: LoginDesk | None = None,
    texts: Texts | None = None,
) -> Starlette:
    """Return everything that people and their tools may ask; a desk that runs no task is made here.

    The API's description is generated from this, over a ledger in memory: nothing is read or written here.
    """
    login = login or logins(config, store=store, metrics=metrics, clock=clock)
    attention = StoredAttention(
        store=store,
        clock=clock,
        settings=config.attention,
        touched=service.touch,
        routing=config.notify.router(),
    )
    incidents = StoredIncidents(store=store, clock=clock, policy=config.approvals.policy())
    judged = _rules(config, store=store, service=service, clock=clock)
    return http.build(
        desk=service,
        persons=config.person,
        metrics=metrics,
        ready=service.ready,
        clock=clock,
        hosts=frozenset(config.http.hosts),
        notices=notices,
        attention=attention,
        incidents=incidents,
        judged=judged,
        more=(
            *ApprovalRoutes(
                desk=StoredApprovals(store=store, policy=config.approvals.policy()),
                passkeys=registered(store, origin=config.http.origin),
            ).rules,
            *AttentionRoutes(desk=attention).rules,
            *PersonRoutes(desk=login).rules,
            *IncidentRoutes(desk=incidents).rules,
            *(OidcRoutes(login=login, desk=login.oidc).rules if login.oidc else ()),
            *LoginRoutes(desk=login).rules,
            *PasskeyRoutes(desk=login).rules,
            *PolicyRoutes(policy=config.approvals.policy(), persons=lambda: config.person).rules,
            *RuleRoutes(desk=judged).rules,
        ),
        visitors=login,
        public_url=config.http.origin,
        texts=texts,
    )


def _rules(config: Config, *, store: Store, service: Service, clock: Clock) -> RuleDesk:
    return StoredRules(
        store=store,
        clock=clock,
        settings=config.rules,
        policy=config.approvals.policy(),
        touched=service.touch,
        routing=config.notify.router(),
    )


def logins(
    config: Config, *, store: Store, metrics: ServerMetrics, clock: Clock, passwords: Passwords | None = None
) -> LoginDesk:
    """Return who knows the people of `config`; `passwords` are hashed as the default says unless given."""
    return LoginDesk(
        store=store,
        clock=clock,
        settings=config.login,
        persons=config.person,
        metrics=metrics,
        passwords=passwords or Passwords(),
        origin=config.http.origin,
    )


def _signatures(config: Config, store: Store) -> Signatures:
    signing = config.approvals.signing
    try:
        signing.read()
        keygen = None if signing.allowed_signers is None else sshsig.find()
    except (ApproversError, KeygenError) as error:
        raise StartError(f"approvals.signing: {error}") from error
    return Signatures(read=signing.read, keygen=keygen, passkeys=registered(store, origin=config.http.origin))


def _receivers(config: Config) -> tuple[Receiver, ...]:
    try:
        return config.notify.build()
    except ValueError as error:
        raise StartError(f"notify: {error}") from error


@contextlib.contextmanager
def stop_on_signals(stop: asyncio.Event) -> Iterator[None]:
    """Set `stop` at SIGTERM or SIGINT while inside."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


@contextlib.asynccontextmanager
async def _running(
    name: str, work: asyncio.Future[None] | object, stop: asyncio.Event
) -> AsyncIterator[asyncio.Task[None]]:
    """Run `work` beside what is inside; its end, wanted or not, sets `stop`."""
    task: asyncio.Task[None] = asyncio.create_task(work, name=name)  # type: ignore[arg-type]
    task.add_done_callback(lambda _: stop.set())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=_STOP_S)


@contextlib.asynccontextmanager
async def _texts(
    config: Config, service: Service, metrics: ServerMetrics, clock: Clock, stop: asyncio.Event
) -> AsyncIterator[Texts]:
    """Let a model be asked about entries, where the settings name one."""
    if config.triage_text is None:
        yield NoTexts()
        return
    try:
        writer = ModelWriter(settings=config.triage_text, clock=clock, metrics=metrics)
    except (OSError, ValueError) as error:
        raise StartError(f"triage_text: {error}") from error
    async with contextlib.aclosing(writer), _running("model texts", writer.run(service.changes), stop):
        yield writer


@contextlib.asynccontextmanager
async def _agents(
    config: Config, service: Service, metrics: ServerMetrics, certificates: Certificates
) -> AsyncIterator[None]:
    """Listen for agents."""
    identities = Identities(trust_domain=config.grpc.trust_domain)
    ingest = Ingest(
        receiver=service,
        identities=identities,
        limits=config.grpc.limits(),
        metrics=metrics,
        certificates=certificates,
    )
    server = grpc.aio.server(
        interceptors=(IdentityRequired(identities=identities),),
        options=_GRPC_OPTIONS,
        maximum_concurrent_rpcs=1024,
    )
    server.add_generic_rpc_handlers((ingest.handler(),))
    try:
        server.add_secure_port(
            config.grpc.listen, credentials.for_server(config.grpc.files(), note=_note_certificates)
        )
    except RuntimeError as error:
        raise StartError(f"listen for agents on {config.grpc.listen}: {error}") from error
    await server.start()
    try:
        yield
    finally:
        await server.stop(_DRAIN_S)


@contextlib.asynccontextmanager
async def _people(
    config: Config, application: Starlette, metrics: ServerMetrics, stop: asyncio.Event
) -> AsyncIterator[None]:
    """Listen for people and their tools."""
    listening = _listen(config.http.listen)
    connections.end_what_is_not_taken(listening)
    server = _Quiet(
        uvicorn.Config(
            application,
            # Named, so that what else is installed beside the orchestrator does not choose its parser.
            http=connections.protocol(metrics.connection_ended),
            loop="asyncio",
            log_config=None,
            access_log=False,
            server_header=False,
            # Who asks is at the socket's other end; a header can say anything.
            proxy_headers=False,
            lifespan="off",
            timeout_graceful_shutdown=int(_DRAIN_S),
            limit_concurrency=connections.AT_ONCE,
        )
    )
    task = asyncio.create_task(server.serve(sockets=[listening]), name="http")
    task.add_done_callback(lambda _: stop.set())
    try:
        yield
    finally:
        server.should_exit = True
        _, late = await asyncio.wait({task}, timeout=_STOP_S)
        for each in late:
            each.cancel()
        listening.close()


def _note_certificates(complaint: str) -> None:
    if complaint:
        _log.warning("certificates_not_renewed", error=complaint)
    else:
        _log.info("certificates_usable_again")


class _Quiet(uvicorn.Server):
    """A server that leaves signals to whoever runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Change no signal handler."""
        yield


def _listen(listen: str) -> socket.socket:
    host, port = address_of(listen)
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=128
        )
    except OSError as error:
        raise StartError(f"listen for people on {listen}: {error.strerror}") from error
