"""What may be decided: approvals, what binds them, what they are weighed by, who may give them."""
