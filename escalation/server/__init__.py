"""The orchestrator: ingest, incidents, recommendations, approvals, audit, and the operator's API."""
