-- The newest delta of an operation that waits for its keyframe.
ALTER TABLE operations ADD COLUMN waiting BLOB;
