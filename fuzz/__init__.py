"""Long runs of what the tests try briefly; see `make fuzz`."""
