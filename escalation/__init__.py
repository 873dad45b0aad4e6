"""FROM A CASE TO A DECISION: the durable way from a host's case to a person's recorded choice."""
