"""The room for NVML: readers for state, processes and events, behind one protocol."""
