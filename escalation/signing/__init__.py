"""Signed approvals: the document, the signatures over it, and who may give them."""
