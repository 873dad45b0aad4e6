"""The project's own benchmark, `make bench`: paired runs, alternating order, medians."""
