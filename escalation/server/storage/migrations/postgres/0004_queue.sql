-- What orders the queue and what explains what stand beside the values: neither reads ten thousand of them.
ALTER TABLE incidents ADD COLUMN severity text COLLATE "C" NOT NULL DEFAULT 'unknown';
ALTER TABLE incidents ADD COLUMN explained_by text COLLATE "C";
UPDATE incidents SET
    severity = coalesce(value::json ->> 'severity', 'unknown'),
    explained_by = value::json ->> 'explained_by';
CREATE INDEX incidents_explained ON incidents (last_seen_ns) WHERE open = 1 AND explained_by IS NOT NULL;

ALTER TABLE recommendations ADD COLUMN created_ns bigint NOT NULL DEFAULT 0;
ALTER TABLE recommendations ADD COLUMN approvers text NOT NULL DEFAULT '[]';
UPDATE recommendations SET
    created_ns = coalesce((value::json ->> 'created_ns')::bigint, 0),
    approvers = coalesce(value::json ->> 'approvers', '[]');
