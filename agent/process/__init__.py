"""The agent as a process: privileges, handed descriptors, the service manager, metrics, logs, doctor."""
