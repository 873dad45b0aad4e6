"""GPUs: what NVML says of their state, processes and faults, read on threads of their own."""
