"""The durable spool on the host."""
