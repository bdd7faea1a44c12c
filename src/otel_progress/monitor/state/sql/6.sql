-- Whether another SDK than ours sent the newest event: then a ratio that it leaves out follows from its counts.
ALTER TABLE operations ADD COLUMN is_foreign INTEGER NOT NULL DEFAULT 0;
UPDATE operations SET is_foreign = 1 WHERE instance IN (
  SELECT instance FROM processes WHERE instr(resource, '"progress.judged_by": "monitor"') > 0
);
