"""What detectors share about model routes: names, windows, rates, answers."""
