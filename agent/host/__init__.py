"""What detectors share about the host: its servers, addresses, filesystems, changes."""
