"""Why a case was opened, kept open or cleared, in the words that an operator reads.

Longer than other modules because it has one sentence per code, checked complete by the type checker.
"""

from __future__ import annotations

from typing import assert_never

from escalation.model import Reason, ReasonCode
from escalation.wording.reason_numbers import numbers


def sentence(reason: Reason) -> str:  # noqa: C901, PLR0912, PLR0915 -- one case per code, checked complete
    """Return why a case was opened, kept open or cleared, as a sentence."""
    match reason.code:
        case ReasonCode.OPEN_REFUSED_AFTER_SUCCESS:
            text = "Opening the GPU was refused (EPERM) where it had worked before"
        case ReasonCode.OPEN_REFUSED_BY_MODE:
            text = "Opening the GPU was refused by the file's mode or owner (EACCES)"
        case ReasonCode.DEVICE_NODE_MISSING:
            text = "The GPU's device node does not exist there (ENOENT)"
        case ReasonCode.DRIVER_BEHIND_NODE_MISSING:
            text = "The device node exists, but no driver answers behind it (ENXIO)"
        case ReasonCode.OPEN_SUCCEEDS_AGAIN:
            text = "Opening the GPU works again"
        case ReasonCode.CGROUP_GONE:
            text = "The container or unit is stopped or gone; nothing is left to recover"
        case ReasonCode.KERNEL_CHOSE_VICTIM:
            text = "The kernel chose the process and killed it; no person did"
        case ReasonCode.CGROUP_COUNTED_KILL:
            text = "The cgroup's own counter agrees that the kernel killed in it"
        case ReasonCode.NO_KILL_SINCE:
            text = "No further kill was seen"
        case ReasonCode.DIED_BY_FAULT_SIGNAL:
            text = "The process died by a signal that only a defect causes"
        case ReasonCode.SUBJECT_RAN_SINCE:
            text = "It has run since without dying again"
        case ReasonCode.LISTENS_ON_ALL_INTERFACES:
            text = "It listens on all interfaces"
        case ReasonCode.LISTENS_OFF_MESH:
            text = "It listens on an address outside the mesh"
        case ReasonCode.HOST_HAS_PUBLIC_ADDRESS:
            text = "The host has a public address"
        case ReasonCode.SOCKET_TABLE_AGREES:
            text = "The host's socket table shows the same listener"
        case ReasonCode.LISTENER_CLOSED:
            text = "The listener is closed"
        case ReasonCode.LISTENER_ALLOWED:
            text = "The listener was put on the allow-list"
        case ReasonCode.SENSOR_BLIND:
            text = "The sensor cannot see"
        case ReasonCode.SENSOR_SEES_AGAIN:
            text = "The sensor sees again"
        case ReasonCode.HOST_SILENT:
            text = "Nothing was heard from the host"
        case ReasonCode.HOST_HEARD_AGAIN:
            text = "The host is heard again"
        case ReasonCode.SECOND_LAYER_UNKNOWN:
            text = "A second, independent sign is missing: treat the cause as likely, not as certain"
        case ReasonCode.ANSWERS_EMPTY:
            text = "Answers had no text, no reasoning and no tool call in them"
        case ReasonCode.USAGE_AGREES:
            text = "The server's own token count agrees"
        case ReasonCode.BUDGET_SPENT_ON_REASONING:
            text = "All tokens were spent on thinking: the answers end for their length with nothing to read"
        case ReasonCode.ANSWER_IN_REASONING_FIELD:
            text = "The answer was finished, but it stands in the reasoning field and the content is empty"
        case ReasonCode.REASONING_MARKS_IN_CONTENT:
            text = "Marks of thinking (<think>, <|channel|>) stand in the answer: no parser took them out"
        case ReasonCode.STREAMS_CUT:
            text = "The server closed the connection in the middle of its answer"
        case ReasonCode.STREAMS_WITHOUT_END:
            text = "Streams ended without saying that they were done"
        case ReasonCode.ERRORS_IN_ANSWERS:
            text = "Answers with status 200 had an error in them"
        case ReasonCode.TEXT_REPEATS:
            text = "The text repeats itself far more than language does"
        case ReasonCode.TEXT_IS_ONE_CHARACTER:
            text = "The text is one character over and over"
        case ReasonCode.TEXT_IS_BLANK:
            text = "The text is blank: spaces and line breaks only"
        case ReasonCode.TEXT_UNDECODABLE:
            text = "The text is full of characters that could not be decoded"
        case ReasonCode.PROMPTS_TOO_LONG:
            text = "The server refused prompts as too long for its context"
        case ReasonCode.PROMPTS_CUT_SILENTLY:
            text = "The server read far fewer tokens than were sent: it cuts prompts without saying so"
        case ReasonCode.NO_BYTES_WHILE_IN_FLIGHT:
            text = "Requests are under way and not one byte comes back, for longer than their size explains"
        case ReasonCode.DEPLOYMENTS_COOLING:
            text = "The router answered that every deployment of the model is cooling down"
        case ReasonCode.REFUSED_AS_BUSY:
            text = "The server refused requests because it is busy"
        case ReasonCode.REQUESTS_QUEUE:
            text = "Requests wait longer and longer for their first byte"
        case ReasonCode.ERRORS_ABOVE_BASELINE:
            text = "More requests fail than is usual on this route"
        case ReasonCode.FIRST_TOKEN_ABOVE_BASELINE:
            text = "The first token takes longer than is usual on this route"
        case ReasonCode.PACE_BELOW_BASELINE:
            text = "Tokens come more slowly than is usual on this route"
        case ReasonCode.LARGE_PROMPTS_FAIL:
            text = "Requests with large prompts failed"
        case ReasonCode.SMALL_PROMPTS_SUCCEED:
            text = "Requests with small prompts succeeded at the same time"
        case ReasonCode.TWO_HOSTS_AGREE:
            text = "Two or more hosts saw the same model stall at the same time"
        case ReasonCode.BOTH_STREAMED_AND_WHOLE:
            text = "Both streamed and whole answers were affected"
        case ReasonCode.ANSWERS_GOOD_AGAIN:
            text = "Answers are good again"
        case ReasonCode.ENGINE_ANSWERS_AGAIN:
            text = "The engine answers again"
        case ReasonCode.BACK_AT_BASELINE:
            text = "It is back at what is usual on this route"
        case ReasonCode.ROUTE_UNUSED:
            text = "Its name is refused as unknown now: the route is not served any more"
        case ReasonCode.MANAGER_RELOADED_BEFORE:
            text = "The service manager read its units again shortly before, which rewrites lists of devices"
        case ReasonCode.HOST_SLEPT_BEFORE:
            text = "The host had slept shortly before"
        case ReasonCode.MEMORY_BELOW_FLOOR:
            text = "Less memory can be had than the floor, and it stays so"
        case ReasonCode.MEMORY_FALLS:
            text = "Memory runs out at the present rate"
        case ReasonCode.TASKS_STALL_FOR_MEMORY:
            text = "All tasks stall together for want of memory"
        case ReasonCode.ALLOCATIONS_STALL:
            text = "Processes had to make room themselves before they got memory"
        case ReasonCode.MEMORY_AVAILABLE_AGAIN:
            text = "Memory can be had again, and nothing stalls for it"
        case ReasonCode.FREE_MEMORY_IS_CACHE:
            text = "Hardly any memory is free, but most of it is cached files that the kernel would give up"
        case ReasonCode.SERVER_STARTS_REPEATEDLY:
            text = "The model server started again and again"
        case ReasonCode.SERVER_STAYS_UP:
            text = "The model server has stayed up"
        case ReasonCode.CPU_BURNS_DURING_REQUESTS:
            text = "The server's processes kept many cores busy while it answered"
        case ReasonCode.NOT_LISTED_ON_GPU:
            text = "The driver lists none of the server's processes on a GPU"
        case ReasonCode.DEVICE_OPENS_FAIL:
            text = "The server's processes could not open the GPU"
        case ReasonCode.LISTED_ON_GPU_AGAIN:
            text = "The driver lists the server's processes on a GPU again, and the CPU is quiet"
        case ReasonCode.CLOCKS_LOW_UNDER_LOAD:
            text = "The GPU is busy at a fraction of the clock that is usual for it under load"
        case ReasonCode.POWER_LOW_UNDER_LOAD:
            text = "It draws a fraction of the power that is usual for it under load"
        case ReasonCode.NO_THROTTLE_REASON:
            text = "The driver gives no reason for it"
        case ReasonCode.CLOCKS_USUAL_AGAIN:
            text = "The clock under load is what is usual again"
        case ReasonCode.XID_REPORTED:
            text = "The driver reported the error"
        case ReasonCode.XID_FROM_SEVERAL_PROCESSES:
            text = "Several different programs met the same error: suspect the hardware"
        case ReasonCode.NO_XID_SINCE:
            text = "No further error was reported"
        case ReasonCode.GPU_IS_LOST:
            text = "The driver has lost the GPU: nothing of it can be read"
        case ReasonCode.GPU_NEEDS_RESET:
            text = "The driver says that the GPU has to be reset"
        case ReasonCode.RECOVERY_IS_ADVISED:
            text = "The driver advises a step of recovery"
        case ReasonCode.GPU_ANSWERS_AGAIN:
            text = "The GPU answers again, and the driver advises nothing"
        case ReasonCode.LIBRARY_DIFFERS_FROM_MODULE:
            text = "The library refuses to work: the loaded kernel module is of another version"
        case ReasonCode.DRIVER_ANSWERS_AGAIN:
            text = "Library and kernel module work together again"
        case ReasonCode.INSTALLED_LIBRARY_DIFFERS:
            text = "The installed library is of another version than the loaded module: what starts now fails"
        case ReasonCode.AUDIO_BELOW_BASELINE:
            text = "Transcription takes several times as long as is usual for audio of that size"
        case ReasonCode.PLACEMENT_DECLARED:
            text = "The operator declared that it belongs where it runs"
        case ReasonCode.PAGES_SWAP:
            text = "Pages move between memory and swap all the time"
        case ReasonCode.RECLAIMS_DIRECTLY:
            text = "Processes had to search for free pages themselves"
        case ReasonCode.MEMORY_STALLS_ENDED:
            text = "Nothing stalls for want of memory any more"
        case ReasonCode.QUOTA_THROTTLES:
            text = "The quota stopped it before the period was over"
        case ReasonCode.THROTTLING_ENDED:
            text = "The quota hardly stops it any more"
        case ReasonCode.TASKS_WAIT_FOR_CPU:
            text = "Tasks that could run wait for a CPU"
        case ReasonCode.SERVER_THREADS_WAIT:
            text = "The server's own threads wait for a CPU far longer than is usual"
        case ReasonCode.NEIGHBOUR_GROWS:
            text = "A neighbour uses much more CPU than before"
        case ReasonCode.CPU_FREE_AGAIN:
            text = "The server's threads get the CPU again"
        case ReasonCode.STUCK_IN_KERNEL:
            text = "The process has been inside one call of the kernel, uninterruptible (state D)"
        case ReasonCode.NO_CPU_PROGRESS:
            text = "It used no CPU time meanwhile"
        case ReasonCode.KERNEL_REPORTS_HANG:
            text = "The kernel itself reported a hung task"
        case ReasonCode.TASKS_STALL_FOR_IO:
            text = "Tasks stall together for disks or network filesystems"
        case ReasonCode.PROCESS_RUNS_AGAIN:
            text = "The process runs again"
        case ReasonCode.PROCESS_GONE:
            text = "The process is gone"
        case ReasonCode.DESCRIPTORS_REFUSED:
            text = "Calls were refused because no file descriptor was left (EMFILE, ENFILE)"
        case ReasonCode.DESCRIPTOR_LIMIT_REACHED:
            text = "The number of open descriptors has reached the limit"
        case ReasonCode.DESCRIPTORS_SUFFICE_AGAIN:
            text = "No call was refused for want of descriptors since"
        case ReasonCode.BACKLOG_NOT_TAKEN:
            text = "Connections wait at the port and nobody accepts them"
        case ReasonCode.PROCESS_STOPPED:
            text = "The process is stopped (state T), by a signal or a debugger"
        case ReasonCode.CONNECTIONS_TAKEN_AGAIN:
            text = "Connections are accepted again"
        case ReasonCode.SPACE_LOW:
            text = "Hardly any space is left for an ordinary user"
        case ReasonCode.INODES_LOW:
            text = "Hardly any inodes are left, however much space there is"
        case ReasonCode.WRITES_REFUSED:
            text = "Writes were refused for want of space (ENOSPC)"
        case ReasonCode.SPACE_FALLS:
            text = "It will be full soon at the present rate"
        case ReasonCode.SPACE_FREE_AGAIN:
            text = "There is room again"
        case ReasonCode.MOUNT_READ_ONLY:
            text = "It was mounted for writing and is read-only now"
        case ReasonCode.MOUNT_SILENT:
            text = "It is mounted and answers no question about itself"
        case ReasonCode.NOT_SEEN_SINCE:
            text = "Nothing was seen of it since, though it would have been: it is gone, or out of use"
        case ReasonCode.NOT_WATCHED:
            text = "It is no longer watched for on this host: a person switched that off, or it is not missed"
        case ReasonCode.MOUNT_MISSING:
            text = "What belongs there is not mounted"
        case ReasonCode.FILESYSTEM_ERRORS:
            text = "The filesystem reported errors of its own structure"
        case ReasonCode.BLOCK_ERRORS:
            text = "The disk below it failed requests"
        case ReasonCode.WRITABLE_AGAIN:
            text = "It can be written again"
        case ReasonCode.MOUNT_BACK:
            text = "It is mounted again"
        case ReasonCode.READS_SLOW:
            text = "Reads take far longer than is usual on this disk"
        case ReasonCode.LOADING_FOR_LONG:
            text = "The server has read its model for longer than is usual and does not listen yet"
        case ReasonCode.READS_USUAL_AGAIN:
            text = "Reads take as long as is usual again"
        case ReasonCode.SERVER_LISTENS:
            text = "The server listens now"
        case ReasonCode.SEGMENTS_RETRANSMITTED:
            text = "TCP segments had to be sent again"
        case ReasonCode.PEER_IS_RELAYED:
            text = "The mesh reaches this peer through a relay only"
        case ReasonCode.PATH_CLEAN_AGAIN:
            text = "Segments arrive the first time again"
        case ReasonCode.CONNECTS_REFUSED:
            text = "Connections were refused: nobody listens there"
        case ReasonCode.CONNECTS_UNREACHABLE:
            text = "No route led to the host"
        case ReasonCode.CONNECTS_TIME_OUT:
            text = "Attempts to connect had no answer"
        case ReasonCode.CONNECTIONS_RESET:
            text = "Established connections were reset"
        case ReasonCode.SERVER_IS_LOADING:
            text = "The server is alive and loads its model: it does not listen before that is done"
        case ReasonCode.CONNECTS_SUCCEED_AGAIN:
            text = "Connections succeed again"
        case ReasonCode.RDMA_COUNTERS_RISE:
            text = "The port's error counters rise"
        case ReasonCode.CARRIER_LOST:
            text = "The link lost its carrier"
        case ReasonCode.COLLECTIVE_FAILED:
            text = "The ranks' own library reported that a collective operation failed"
        case ReasonCode.LINK_STEADY_AGAIN:
            text = "The link is steady again, and its error counters stand still"
        case ReasonCode.NODE_MARKED_DEAD:
            text = "The cluster marked the node as dead"
        case ReasonCode.WORKER_PROCESS_ENDED:
            text = "The worker's process ended"
        case ReasonCode.WORKER_BACK:
            text = "The worker is back"
        case ReasonCode.BROADCAST_BLOCKED:
            text = "A rank waited in vain for the others' shared memory"
        case ReasonCode.TOKEN_COUNTERS_FLAT:
            text = "Requests run and the server's own token counters stand still"
        case ReasonCode.MESH_NOT_RUNNING:
            text = "The mesh's daemon does not run, or is not logged in"
        case ReasonCode.MESH_OFFLINE:
            text = "The mesh's control server does not see this host"
        case ReasonCode.KEY_EXPIRED:
            text = "The host's key has expired: the mesh refuses it"
        case ReasonCode.KEY_EXPIRES_SOON:
            text = "The host's key expires soon"
        case ReasonCode.HEALTH_WARNINGS:
            text = "The mesh's daemon warns"
        case ReasonCode.PEERS_RELAYED:
            text = "Active peers are reached through a relay, not directly"
        case ReasonCode.MESH_WELL_AGAIN:
            text = "The mesh is up again and does not warn"
        case ReasonCode.CONTROL_PLANE_REACHABLE:
            text = "It listens where hosts outside the mesh can reach it"
        case ReasonCode.PEER_OFF_MESH:
            text = "Somebody outside the mesh is connected to it"
        case ReasonCode.CONTROL_PLANE_CLOSED:
            text = "It cannot be reached from outside the mesh any more"
        case ReasonCode.PUBLISHED_BY_PROXY:
            text = "The container engine publishes the port on the host"
        case ReasonCode.FIREWALL_NOT_SEEN:
            text = "Whether a firewall keeps others out cannot be seen from here"
        case ReasonCode.NOT_EXPECTED_HERE:
            text = "Nothing is declared to listen there on this host"
        case ReasonCode.LIVES_ARE_SHORT:
            text = "It ended shortly after each start"
        case ReasonCode.START_LIMIT_HIT:
            text = "The service manager gave up starting it"
        case ReasonCode.ADDRESS_IN_USE:
            text = "It could not bind its address: another one has it (EADDRINUSE)"
        case ReasonCode.CGROUP_COMES_AND_GOES:
            text = "Its control group vanished and came back again and again"
        case ReasonCode.UNIT_STAYS_UP:
            text = "It stays up"
        case ReasonCode.COMMAND_LINE_CHANGED:
            text = "Its command line is another one than recorded"
        case ReasonCode.MODEL_CHANGED:
            text = "It serves another model than recorded"
        case ReasonCode.CONTEXT_CHANGED:
            text = "Its context has another length than recorded"
        case ReasonCode.IMAGE_CHANGED:
            text = "Its image or executable is another one than recorded"
        case ReasonCode.BACK_AS_RECORDED:
            text = "It runs as recorded again"
        case ReasonCode.CHANGE_ACCEPTED:
            text = "The change was accepted as the new record"
        case ReasonCode.SHARED_MEMORY_REFUSED:
            text = "Shared memory was refused for want of space (ENOSPC under /dev/shm)"
        case ReasonCode.DIED_BY_BUS_ERROR:
            text = "A process died by a bus error (SIGBUS), as happens when shared memory runs out"
        case ReasonCode.SESSIONS_REFUSED:
            text = "The database refused connections: too many clients"
        case ReasonCode.SESSIONS_NEAR_LIMIT:
            text = "Nearly all connections that the database allows are taken"
        case ReasonCode.KEYS_REFUSED_AT_ROUTER:
            text = "The router refuses valid keys meanwhile (401): it cannot ask its database"
        case ReasonCode.SESSIONS_FREE_AGAIN:
            text = "The database has connections to give again"
        case ReasonCode.UI_ANSWERS_BLANK:
            text = "Answers through the web interface were blank"
        case ReasonCode.BACKEND_ANSWERS_GOOD:
            text = "The model server answered well at the same time"
        case ReasonCode.UI_ANSWERS_AGAIN:
            text = "Answers arrive through the web interface again"
        case ReasonCode.EXECUTABLE_NOT_ALLOWED:
            text = "It ran a program that its scope does not name"
        case ReasonCode.DESTINATION_NOT_ALLOWED:
            text = "It connected to an address that its scope does not name"
        case ReasonCode.LISTENER_NOT_ALLOWED:
            text = "It listens at an address that its scope does not name"
        case ReasonCode.SECRET_ON_COMMAND_LINE:
            text = "A secret stands on its command line, readable by everybody on the host"
        case ReasonCode.CONNECTION_DENIED:
            text = "The kernel refused the connection, as the host's configuration wants it"
        case ReasonCode.SECRET_GONE:
            text = "No secret stands on its command line any more"
        case ReasonCode.NO_VIOLATION_SINCE:
            text = "It has kept to its scope since"
        case ReasonCode.LOG_LINE_MATCHES:
            text = "Its log says so"
        case ReasonCode.METRICS_AGREE:
            text = "The server's own metrics agree"
        case ReasonCode.DRILL_ENDED:
            text = "It was a drill, which is over; what it had made is removed"
        case ReasonCode.SHARED_MEMORY_SMALL:
            text = "The container was given little shared memory"
        case ReasonCode.UNKNOWN:
            text = "A reason that this orchestrator does not know; the agent is newer"
        case _:
            assert_never(reason.code)
    return f"{text}{numbers(reason)}."
