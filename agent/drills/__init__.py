"""Faults made on purpose by root, small and bounded, to see the alarm work; no part of a running agent."""
