-- One counter gives the numbers of all tables, none of them twice.
ALTER TABLE change_head ADD COLUMN number INTEGER NOT NULL DEFAULT 0;
UPDATE change_head SET number = (SELECT COALESCE(MAX(seq), 0) FROM sqlite_sequence);

-- A random number of the transaction, by which a revision is told from the same one of another log.
ALTER TABLE changes ADD COLUMN writer INTEGER NOT NULL DEFAULT 0;
