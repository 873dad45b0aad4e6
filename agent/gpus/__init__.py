"""What detectors share about GPUs: their state, who works on them, and who is meant to."""
