"""What people and their tools see: one view model for the command line, the pages and the API."""
