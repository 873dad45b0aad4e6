"""Detectors: one file per fault class or close family, pure, unaware of each other."""
