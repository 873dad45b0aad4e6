"""What became of reports: incidents, their timeline, what was changed nearby."""
