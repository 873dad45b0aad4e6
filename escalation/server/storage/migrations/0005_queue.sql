-- What orders the queue and what explains what stand beside the values: neither reads ten thousand of them.
ALTER TABLE incidents ADD COLUMN severity TEXT NOT NULL DEFAULT 'unknown';
ALTER TABLE incidents ADD COLUMN explained_by TEXT;
UPDATE incidents SET
    severity = coalesce(json_extract(value, '$.severity'), 'unknown'),
    explained_by = json_extract(value, '$.explained_by');
CREATE INDEX incidents_explained ON incidents (last_seen_ns) WHERE open = 1 AND explained_by IS NOT NULL;

ALTER TABLE recommendations ADD COLUMN created_ns INTEGER NOT NULL DEFAULT 0;
ALTER TABLE recommendations ADD COLUMN approvers TEXT NOT NULL DEFAULT '[]';
UPDATE recommendations SET
    created_ns = coalesce(json_extract(value, '$.created_ns'), 0),
    approvers = coalesce(json_extract(value, '$.approvers'), '[]');
