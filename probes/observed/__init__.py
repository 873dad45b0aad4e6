"""Observations by family: one file each, all of them imported through `probes.observation`."""
