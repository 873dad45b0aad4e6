"""F18 and F46: servers that compute on the CPU and should not, and everything that only looks like it."""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Iterable

import pytest

from agent.detector import CgroupLook, World
from agent.detectors.gpu_placement import Config, GpuPlacement
from agent.finding import Finding, Place, Verdict
from agent.gpus.placement import Placement, PlacementRule, Placements
from agent.testing import (
    CGROUP_PATH,
    CONTAINER,
    SURROUNDINGS,
    blind,
    exchange,
    gpu_absent,
    gpu_state,
    in_flight,
    open_case,
    opens,
    origin,
    present,
    seeing,
    server_metrics,
    tick,
    usage,
)
from escalation.model import FaultClass, PlacementEvidence, ReasonCode, Severity, Subject, SubjectKind
from probes.gpu.facts import Absence
from probes.http.facts import Route
from probes.observation import CgroupId, NvidiaDevice, Observation, ServerKind

IN_CONTAINER = Subject(SubjectKind.CONTAINER, CONTAINER)
SERVERS, GPUS = "host.servers", "gpu.nvml"
FALLBACK = FaultClass.GPU_CPU_FALLBACK


def made(*rules: PlacementRule) -> GpuPlacement:
    """A detector whose sensors see, with what the operator declared."""
    around = dataclasses.replace(SURROUNDINGS, placements=Placements.of(rules))
    detector = GpuPlacement.build(Config(), around)
    detector.observe(seeing(0, SERVERS))
    return detector


def meant(on: Placement) -> GpuPlacement:
    """A detector that knows where the container belongs."""
    return made(PlacementRule(container=CONTAINER, on=on))


def works(
    since: int,
    until: int,
    *,
    cores: float = 12,
    gpu: Iterable[Observation] | None = None,
    requests: bool = True,
    route: Route = Route.CHAT_COMPLETIONS,
    model: str = "qwen3-32b",
    where: ServerKind = ServerKind.VLLM,
) -> list[Observation]:
    """A server that keeps `cores` busy, with a request under way and a GPU that lists nobody."""
    server = origin(server=where)
    told: list[Observation] = []
    for second in range(since, until + 1, 5):
        told.append(gpu_state(second))
        if requests:
            told.append(in_flight(second, requests=1, oldest_s=5.0, route=route, model=model, where=server))
        told.append(usage(second, cores, where=server))
    return told if gpu is None else [*gpu, *(each for each in told if each.sensor != GPUS)]


def codes(found: Finding) -> list[ReasonCode]:
    return [reason.code for reason in found.reasons]


def test_cores_and_absence_are_a_fallback() -> None:
    """Declared on the GPU, many cores busy at work, and no GPU lists it: both signs, with their numbers."""
    found = present(meant(Placement.GPU), *works(0, 60))[0]
    assert (found.fault_class, found.severity, found.subject) == (FALLBACK, Severity.HIGH, IN_CONTAINER)
    assert codes(found) == [ReasonCode.CPU_BURNS_DURING_REQUESTS, ReasonCode.NOT_LISTED_ON_GPU]
    evidence = found.evidence[0]
    assert isinstance(evidence, PlacementEvidence)
    assert (evidence.cores, evidence.listed, evidence.window_s) == (12.0, False, 15.0)
    assert not found.lifebound


def test_a_server_that_admits_it_needs_no_list_of_the_driver() -> None:
    """Ollama says that nothing lies on a GPU, and its cores burn, while nobody can ask the GPU."""
    story: list[Observation] = [each for each in works(0, 60, where=ServerKind.OLLAMA) if each.sensor != GPUS]
    told = server_metrics(1, server=ServerKind.OLLAMA, model_on_gpu_share=0.0)
    found = present(meant(Placement.GPU), told, *story)[0]
    assert codes(found) == [ReasonCode.CPU_BURNS_DURING_REQUESTS, ReasonCode.METRICS_AGREE]


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_a_server_that_claims_to_be_on_a_gpu_proves_nothing(share: float) -> None:
    """Ollama may say "GPU" of a model on the CPU: its claim takes no sign away, and adds none."""
    told = server_metrics(1, server=ServerKind.OLLAMA, model_on_gpu_share=share)
    story = works(0, 60, where=ServerKind.OLLAMA)
    assert present(meant(Placement.GPU), told, *story) == present(meant(Placement.GPU), *story) != []
    assert present(meant(Placement.GPU), told, *(each for each in story if each.sensor != GPUS)) == []


def test_a_server_that_was_on_a_gpu_needs_no_declaration() -> None:
    """What the driver listed once is held to it."""
    server = origin()
    before = [
        each for second in (0, 5, 10) for each in (gpu_state(second, server), usage(second, 1, where=server))
    ]
    assert present(made(), *before) == []
    assert present(made(), *before, *works(15, 60)) != []


def test_a_server_that_never_was_on_a_gpu_is_left_alone() -> None:
    """Nobody said where it belongs, and it never was anywhere else."""
    assert present(made(), *works(0, 120)) == []


@pytest.mark.parametrize("on", [Placement.CPU, Placement.PARTIAL])
def test_a_declared_placement_stays_quiet(on: Placement) -> None:
    """An embedding model on the CPU, a model that is split on purpose."""
    assert present(meant(on), *works(0, 120)) == []


def test_a_model_that_belongs_on_the_cpu_stays_quiet_beside_one_that_does_not() -> None:
    """One Ollama serves both; what the embedding model burns is not held against the other."""
    detector = made(
        PlacementRule(container=CONTAINER, on=Placement.GPU),
        PlacementRule(route="8000/nomic-embed-text", on=Placement.CPU),
    )
    assert present(detector, *works(0, 120, route=Route.OLLAMA_EMBED, model="nomic-embed-text")) == []


def test_a_burst_for_a_prompt_stays_quiet() -> None:
    """Ten busy cores for five seconds in a minute of work."""
    story = [
        each
        for second in range(0, 120, 5)
        for each in works(second, second, cores=10 if second % 60 == 0 else 1)
    ]
    assert present(meant(Placement.GPU), *story) == []


def test_cores_without_requests_stay_quiet() -> None:
    """A model that is being loaded or compiled keeps cores busy and answers nobody."""
    assert present(meant(Placement.GPU), *works(0, 120, cores=30, requests=False)) == []


def test_a_server_that_a_gpu_lists_stays_quiet() -> None:
    """Tokenising on many cores beside a GPU that works is no fallback, even with slow answers."""
    server = origin()
    story: list[Observation] = []
    for second in range(0, 120, 5):
        story += [gpu_state(second, server), *works(second, second, gpu=())]
        story.append(exchange(second, completion_tokens=100, duration_s=3.0 if second < 60 else 60.0))
    assert present(meant(Placement.GPU), *story) == []


def test_an_idle_server_that_unloaded_its_model_stays_quiet() -> None:
    """Ollama gives the GPU back after some minutes: not listed, nothing burns, whatever failed to open."""
    detector = meant(Placement.GPU)
    story = [*works(0, 30, cores=0.1, requests=False), opens(31, errno.EPERM, prior=3)]
    assert present(detector, *story, *works(35, 120, cores=0.1, requests=False)) == []


def test_one_sign_is_not_enough_while_the_list_is_unknown() -> None:
    """Cores burn, and nobody can say whether a GPU lists the server: nothing is claimed."""
    absent = [gpu_absent(0, Absence.NO_DRIVER, code=9)]
    assert present(meant(Placement.GPU), *works(0, 120, gpu=absent)) == []
    assert present(meant(Placement.GPU), *works(0, 120, gpu=[gpu_state(0, listed=False)])) == []


def test_failed_opens_agree_while_the_list_is_unknown() -> None:
    """The stale container: its opens are refused, and its cores do the work."""
    detector = meant(Placement.GPU)
    story = [usage(0, 0), opens(1, errno.EPERM, prior=7, count=3), *works(5, 60, gpu=())]
    found = present(detector, *story)[0]
    assert codes(found) == [ReasonCode.CPU_BURNS_DURING_REQUESTS, ReasonCode.DEVICE_OPENS_FAIL]
    evidence = found.evidence[0]
    assert isinstance(evidence, PlacementEvidence)
    assert (evidence.listed, evidence.failed_opens) == (None, 3)


@pytest.mark.parametrize(
    "story",
    [
        (opens(1, errno.EPERM, device=NvidiaDevice.GPU, minor=1, prior=7),),
        (opens(1, errno.EPERM, prior=7), opens(2, 0)),
        (opens(1, errno.EPERM, prior=7, where=origin(container="d" * 64)),),
    ],
    ids=["excluded-gpu", "opened-since", "somebody-else"],
)
def test_opens_that_prove_nothing_are_no_sign(story: tuple[Observation, ...]) -> None:
    """A GPU that is excluded on purpose, a refusal that is over, a refusal of another container."""
    assert present(meant(Placement.GPU), usage(0, 0), *story, *works(5, 60, gpu=())) == []


def test_a_pace_far_below_the_usual_is_a_sign() -> None:
    """Learnt while the driver lists the server; then slow, and not listed any more."""
    server = origin()
    detector = meant(Placement.GPU)
    story: list[Observation] = []
    for second in range(0, 50, 5):
        story += [
            gpu_state(second, server),
            usage(second, 1),
            exchange(second, completion_tokens=144, first_token_s=0.4),
        ]
    story += [
        each
        for second in range(50, 100, 5)
        for each in (
            gpu_state(second),
            exchange(second, completion_tokens=144, first_token_s=0.4, duration_s=72.4),
            usage(second, 1),
        )
    ]
    found = present(detector, *story)[0]
    assert codes(found) == [ReasonCode.NOT_LISTED_ON_GPU, ReasonCode.PACE_BELOW_BASELINE]
    evidence = found.evidence[0]
    assert isinstance(evidence, PlacementEvidence)
    assert (evidence.measured, evidence.baseline) == (2.0, 40.0)


def test_a_transcription_falls_back_at_fewer_cores() -> None:
    """Whisper on three cores, absent from every GPU: its own fault class, one step less grave."""
    story = works(0, 60, cores=3, route=Route.TRANSCRIPTIONS, model="small", where=ServerKind.WHISPER)
    found = present(meant(Placement.GPU), *story)[0]
    assert (found.fault_class, found.severity) == (
        FaultClass.TRANSCRIPTION_CPU_FALLBACK,
        Severity.MEDIUM,
    )
    assert present(meant(Placement.GPU), *works(0, 60, cores=3)) == []


def test_a_server_that_also_writes_is_no_transcriber() -> None:
    """vLLM serves Whisper beside a chat model: three cores are a transcriber's measure, not its own."""
    story = [
        each
        for second in range(0, 65, 5)
        for route, model in ((Route.TRANSCRIPTIONS, "small"), (Route.CHAT_COMPLETIONS, "qwen3"))
        for each in works(second, second, cores=3, route=route, model=model)
    ]
    assert present(meant(Placement.GPU), *story) == []
    alone = [
        each
        for second in range(0, 65, 5)
        for each in works(second, second, cores=3, route=Route.TRANSCRIPTIONS)
    ]
    assert {one.fault_class for one in present(meant(Placement.GPU), *alone)} == {
        FaultClass.TRANSCRIPTION_CPU_FALLBACK
    }


def test_audio_that_takes_far_longer_than_usual_is_a_sign() -> None:
    """Seconds for bytes of audio, learnt on the GPU; the fact names no tokens, because there are none."""
    server = origin(server=ServerKind.WHISPER)
    detector = meant(Placement.GPU)

    def heard(second: int, duration_s: float) -> Observation:
        return exchange(
            second,
            route=Route.TRANSCRIPTIONS,
            model="small",
            where=server,
            request_bytes=320_000,
            duration_s=duration_s,
        )

    story: list[Observation] = []
    for second in range(0, 50, 5):
        story += [gpu_state(second, server), usage(second, 1, where=server), heard(second, 2.0)]
    for second in range(50, 100, 5):
        story += [gpu_state(second), heard(second, 40.0), usage(second, 1, where=server)]
    found = present(detector, *story)[0]
    assert codes(found) == [ReasonCode.NOT_LISTED_ON_GPU, ReasonCode.AUDIO_BELOW_BASELINE]
    evidence = found.evidence[0]
    assert isinstance(evidence, PlacementEvidence)
    assert (evidence.measured, evidence.baseline) == (None, None)


def test_decoding_audio_stays_quiet() -> None:
    """ffmpeg takes four cores for a moment before the GPU has its turn."""
    story: list[Observation] = []
    for second in range(0, 120, 5):
        cores = 4 if second % 30 == 0 else 0.5
        story += works(
            second, second, cores=cores, route=Route.TRANSCRIPTIONS, model="small", where=ServerKind.WHISPER
        )
    assert present(meant(Placement.GPU), *story) == []


def test_a_gateway_is_not_judged_by_what_it_passes_on() -> None:
    """Requests of a router name a cgroup in which no model server is measured."""
    detector = meant(Placement.GPU)
    for second in range(0, 60, 5):
        detector.observe(
            in_flight(second, port=4000, where=origin(container="d" * 64, server=ServerKind.LITELLM))
        )
    assert list(detector._servers) == []


def test_clears_when_a_gpu_lists_it_and_its_cores_are_quiet_at_work() -> None:
    """Neither the list nor quiet cores alone end it, and an answer with status 200 ends nothing."""
    detector, server = meant(Placement.GPU), origin()
    present(detector, *works(0, 60))
    assert detector.observe(exchange(61)) == ()
    detector.observe(gpu_state(65, server))
    assert detector.observe(usage(65, 12)) == ()
    for second in range(70, 140, 5):
        detector.observe(gpu_state(second, server))
        said = detector.observe(usage(second, 1))
    assert {one.verdict for one in said} == {Verdict.ABSENT}
    assert said[0].reasons[0].code is ReasonCode.LISTED_ON_GPU_AGAIN


def test_clears_when_it_is_declared_to_be_there() -> None:
    """The operator says that the CPU is right: the case ends with that reason."""
    said = meant(Placement.CPU).observe(usage(0, 12))
    assert [one.reasons[0].code for one in said] == [ReasonCode.PLACEMENT_DECLARED] * 2


def test_a_restart_alone_is_no_recovery() -> None:
    """The cgroup is gone between two lives; only an hour of that ends the case."""
    place = Place(CgroupId(2305), CGROUP_PATH)
    case = open_case(FALLBACK, IN_CONTAINER, place=place)
    gone = World(cgroups={place: CgroupLook(exists=False)})
    replaced = World(cgroups={place: CgroupLook(exists=True, same=False)})
    detector = meant(Placement.GPU)
    assert detector.tick(tick(600, case, world=gone)) == []
    assert detector.tick(tick(9999, case, world=replaced)) == []
    assert [one.verdict for one in detector.tick(tick(3600, case, world=gone))] == [Verdict.ABSENT]


@pytest.mark.parametrize("sensor", [SERVERS, GPUS])
def test_keeps_open_when_source_goes_blind(sensor: str) -> None:
    """Blindness takes a clearing back and clears nothing."""
    detector = meant(Placement.GPU)
    present(detector, *works(0, 60))
    assert {one.verdict for one in detector.observe(blind(61, sensor))} == {Verdict.UNKNOWN}
    detector.observe(usage(65, 0))
    assert [one for one in detector.observe(usage(70, 0)) if one.verdict is Verdict.ABSENT] == []


def test_is_unknown_while_the_servers_cannot_be_seen() -> None:
    """An open case of a server that nobody measures is neither there nor over."""
    detector = meant(Placement.GPU)
    detector.observe(blind(1, SERVERS))
    assert {one.verdict for one in detector.tick(tick(2, open_case(FALLBACK, IN_CONTAINER)))} == {
        Verdict.UNKNOWN
    }


def test_remembers_a_bounded_number_of_servers() -> None:
    """A thousand containers cost what a hundred do."""
    detector = meant(Placement.GPU)
    for number in range(1000):
        detector.observe(usage(1, 1, where=origin(container=f"{number:064x}")))
    assert len(detector._servers) == 128


def test_what_was_on_a_gpu_is_known_after_a_restart() -> None:
    """Which servers were listed, and how fast they were there, outlives the agent; nonsense is counted."""
    first = made()
    server = origin()
    for second in range(0, 60, 5):
        first.observe(gpu_state(second, server))
        first.observe(usage(second, 1, where=server))
        first.observe(exchange(second, where=server, completion_tokens=400, duration_s=4.0))
    second_life = made()
    assert second_life.recall({**first.memory(), "unit/x": b"no json", "strange/y": b"[]"}) == 2
    found = present(second_life, *works(100, 160))
    assert codes(found[0])[:2] == [ReasonCode.CPU_BURNS_DURING_REQUESTS, ReasonCode.NOT_LISTED_ON_GPU]
    assert present(made(), *works(100, 160)) == []
    assert second_life.memory().keys() == first.memory().keys()
