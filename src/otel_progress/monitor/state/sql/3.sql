-- Muted operations: shown as ever, but webhooks are silent about them. `attempt` is the one that was muted.
CREATE TABLE mutes (
  operation_id TEXT PRIMARY KEY,
  attempt INTEGER NOT NULL,
  who TEXT,
  reason TEXT,
  since REAL NOT NULL,
  until REAL
) WITHOUT ROWID;
