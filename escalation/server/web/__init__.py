"""What people and their tools reach over HTTP: the gate, the routes, the pages."""
