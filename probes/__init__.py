"""SENSORS: what the machine said. Imports nothing of ours; the only place for bcc and NVML."""
