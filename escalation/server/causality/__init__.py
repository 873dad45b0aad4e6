"""What explains what: on one host, across hosts, along the topology."""
