"""nanobotctl: the operator's command line."""
