"""process.not_answering: a server listens, and takes none of the connections that wait for it.

A process that was stopped (state T) goes on when it is told to, and has lost nothing. One that runs and takes
nothing hangs, and only a restart helps.
"""

from __future__ import annotations

from typing import Final

from escalation.model import (
    ActionKind,
    Advice,
    Incident,
    ProcessEvidence,
    ProcessState,
    ReasonCode,
    Verification,
)
from escalation.server.playbook import serving, steps
from escalation.server.playbook.names import process_id

_PROOF: Final = Verification(
    text="Within 15 minutes no connection waits, and none is left waiting for 10 minutes after that.",
    within_s=900,
    quiet_s=600,
)


def advise(incident: Incident) -> Advice:
    """Return: let a stopped process go on; restart one that runs and hangs; look where neither is sure."""
    found = next((each for each in incident.evidence if isinstance(each, ProcessEvidence)), None)
    stopped = steps.has_reason(incident, ReasonCode.PROCESS_STOPPED) or (
        found is not None and found.state is ProcessState.STOPPED
    )
    if steps.is_only_a_note(incident):
        return _look(incident, found, stopped=stopped)
    pid = process_id(incident)
    if stopped and pid is not None and found is not None and found.pid in {None, pid}:
        return steps.propose(
            incident,
            ActionKind.RESUME_PROCESS,
            ("kill", "-CONT", str(pid)),
            summary=(
                "Let the stopped process go on: it takes the waiting connections at once, and has lost "
                "nothing. Ask first whether somebody stopped it to look into it (a debugger, a core dump)."
            ),
            risk=(
                "Clients that gave up meanwhile find their requests answered into the void. Whoever stopped "
                "it on purpose is disturbed."
            ),
            will_not_fix="Whatever stopped it: if that does so again, the case comes back.",
            proof=_PROOF,
        )
    restart = serving.restart_command(incident)
    if stopped or restart is None:
        return _look(incident, found, stopped=stopped)
    kind, command = restart
    return steps.propose(
        incident,
        kind,
        command,
        summary="Restart the server: it runs, and has taken no connection and done no work for a while.",
        risk=(
            "Requests in flight are cut off, and the model is loaded again, which takes from seconds to many "
            "minutes. Keep its last words first: a restart loses the trace of why it hangs."
        ),
        will_not_fix="Why it hangs: what led there may lead there again.",
        proof=_PROOF,
    )


def _look(incident: Incident, found: ProcessEvidence | None, *, stopped: bool) -> Advice:
    pid = process_id(incident)
    command: tuple[str, ...]
    if stopped and pid is not None:
        command = ("ps", "-o", "pid,ppid,stat,etime,comm", "-p", str(pid))
        summary = (
            "Look at the process and its parent: it is stopped (state T), as a debugger or a person at a "
            "terminal leaves it. Nothing waits for it, or it is not known which process it is by now."
        )
    else:
        command = ("ss", "-H", "-l", "-t", "-n", "-p")
        if found is not None and 0 < found.port < 65_536:
            command = (*command, f"sport = :{found.port}")
        summary = (
            "Look at who listens and how many connections wait (the second column). A server that takes "
            "connections and answers late has none waiting; one that hangs has."
        )
    return steps.look(
        incident,
        command,
        summary=summary,
        will_not_fix="Anything: it shows what has to go on, or to be restarted.",
        proof=_PROOF,
        risk="None: the command only reads. Its output names the process.",
    )
