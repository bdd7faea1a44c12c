-- What people were told already is not told again after a start: that its process is dead.
ALTER TABLE operations ADD COLUMN dead INTEGER NOT NULL DEFAULT 0;
-- How far an operation was shown that is rolled up from its children: it never falls.
ALTER TABLE operations ADD COLUMN rolled TEXT;
