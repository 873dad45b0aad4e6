"""What drains the outbox to the orchestrator."""
