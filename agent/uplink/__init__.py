"""From a judged case to the orchestrator: backlog, outbox, connection."""
