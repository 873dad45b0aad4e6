"""The orchestrator: ingest, incidents, recommendations, approvals, audit, and the operator's API.

`ingest` takes reports, `triage` makes of them what `incident`, `causality` and `playbook` say, `decision` and
`attention` hold what people may do with it, `notify` tells them, `storage` keeps it, `web` shows it. `app`
puts all of it together.
"""
