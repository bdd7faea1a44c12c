-- The event on which the newest one of a running operation builds; it changes less often than that one.
CREATE TABLE keyframes (operation INTEGER PRIMARY KEY, raw BLOB NOT NULL);
CREATE TRIGGER keyframes_gone AFTER DELETE ON operations BEGIN
  DELETE FROM keyframes WHERE operation = old.key;
END;
