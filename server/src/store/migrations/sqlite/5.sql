-- For whose key an agent attested last, and when; a renewal makes the key NULL. The same key may come
-- again for a while, since the answer may have been lost.
ALTER TABLE nodes ADD COLUMN attested_key BLOB;
ALTER TABLE nodes ADD COLUMN attested_at INTEGER;

-- The random number of the last transaction, as it is in the log of changes.
ALTER TABLE change_head ADD COLUMN last_writer INTEGER NOT NULL DEFAULT 0;

-- The oldest version that a server may know to use the tables as they are.
ALTER TABLE schema_version ADD COLUMN readable_since INTEGER NOT NULL DEFAULT 0;
