"""What an assistant may read of the orchestrator, over the Model Context Protocol; it decides nothing."""
