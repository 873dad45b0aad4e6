"""protobuf <-> model."""
