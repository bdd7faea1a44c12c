CREATE TABLE operations (
  key INTEGER PRIMARY KEY,
  operation_id TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  status TEXT NOT NULL,
  health TEXT NOT NULL,
  parent_id TEXT,
  agent TEXT,
  owner TEXT,
  started_at REAL,
  timestamp REAL NOT NULL,
  attempt INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  instance TEXT NOT NULL,
  revision INTEGER NOT NULL,
  ended INTEGER NOT NULL,
  presumed INTEGER NOT NULL,
  text TEXT NOT NULL,
  raw BLOB NOT NULL
);
CREATE INDEX open_operations ON operations (ended) WHERE ended = 0;
-- It holds all that a list is filtered by, so no row is read in vain; those that run cost it nothing.
CREATE INDEX ended_operations
  ON operations (ended, timestamp, operation_id, status, name, parent_id, owner, text) WHERE ended = 1;
CREATE INDEX children ON operations (parent_id) WHERE parent_id IS NOT NULL;

-- A number stands for the operation: with the id itself, the index would be twice as large and half as fast.
CREATE TABLE events (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  operation INTEGER NOT NULL,
  started_at REAL NOT NULL,
  attempt INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  timestamp REAL NOT NULL,
  event TEXT NOT NULL,
  stage TEXT,
  text TEXT NOT NULL,
  status TEXT,
  agent TEXT,
  ratio REAL,
  attributes TEXT,
  UNIQUE (operation, started_at, attempt, sequence)
);

CREATE TABLE processes (
  instance TEXT PRIMARY KEY,
  resource TEXT NOT NULL,
  heard_at REAL NOT NULL,
  interval REAL
) WITHOUT ROWID;
CREATE INDEX processes_heard ON processes (heard_at);

CREATE TABLE outgoing (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  signal TEXT NOT NULL,
  size INTEGER NOT NULL,
  body BLOB NOT NULL
);
CREATE INDEX outgoing_sizes ON outgoing (signal, id, size);

CREATE TABLE numbers (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
