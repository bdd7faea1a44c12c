-- Where and as what a process was seen alive by the monitor, as JSON, so that its death can be proven after a restart.
ALTER TABLE processes ADD COLUMN seen TEXT;
