CREATE TABLE operations (
  key INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  attempt INTEGER NOT NULL,
  status TEXT NOT NULL,
  reason TEXT,
  fingerprint TEXT,
  started_at REAL NOT NULL,
  ended_at REAL,
  seen_at REAL NOT NULL,
  lease_until REAL NOT NULL,
  lease_mono REAL NOT NULL,
  fence INTEGER NOT NULL,
  host TEXT NOT NULL,
  boot TEXT NOT NULL,
  namespace TEXT NOT NULL,
  pid INTEGER NOT NULL,
  ticks INTEGER NOT NULL,
  command TEXT NOT NULL,
  cwd TEXT NOT NULL,
  completed NUMERIC,
  total NUMERIC,
  unit TEXT,
  stage TEXT,
  message TEXT,
  checkpoint_at REAL,
  trace_id TEXT,
  span_id TEXT
);

-- A number stands for the scope, so that a key takes little more than its own length.
CREATE TABLE scopes (
  key INTEGER PRIMARY KEY,
  operation INTEGER NOT NULL REFERENCES operations ON DELETE CASCADE,
  path TEXT NOT NULL,
  UNIQUE (operation, path)
);

CREATE TABLE marks (
  scope INTEGER NOT NULL REFERENCES scopes ON DELETE CASCADE,
  item TEXT NOT NULL,
  failed INTEGER NOT NULL,
  PRIMARY KEY (scope, item)
) WITHOUT ROWID;

CREATE TABLE states (
  scope INTEGER NOT NULL REFERENCES scopes ON DELETE CASCADE,
  kind TEXT NOT NULL,
  version INTEGER NOT NULL,
  text TEXT NOT NULL,
  PRIMARY KEY (scope, kind)
);

CREATE TABLE hands (
  scope INTEGER NOT NULL REFERENCES scopes ON DELETE CASCADE,
  item TEXT NOT NULL,
  PRIMARY KEY (scope, item)
) WITHOUT ROWID;

-- Items that were in hand when a process died: how often, and whether later attempts leave them out.
CREATE TABLE deaths (
  scope INTEGER NOT NULL REFERENCES scopes ON DELETE CASCADE,
  item TEXT NOT NULL,
  deaths INTEGER NOT NULL,
  aside INTEGER NOT NULL,
  PRIMARY KEY (scope, item)
) WITHOUT ROWID;
