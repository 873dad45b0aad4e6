"""What developers run: setup, generation, `make run`. Not part of the distribution."""
