-- One counter gives the numbers of all tables, none of them twice.
ALTER TABLE change_head ADD COLUMN number INTEGER NOT NULL DEFAULT 0;
UPDATE change_head SET number = (SELECT COALESCE(MAX(seq), 0) FROM sqlite_sequence);

-- By this number, which each server takes at its start, it knows its own changes again.
ALTER TABLE changes ADD COLUMN writer INTEGER NOT NULL DEFAULT 0;
