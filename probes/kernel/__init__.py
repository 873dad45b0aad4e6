"""eBPF: the privileged loader, the handover of its descriptors, and one pair of files per program."""
