-- For whose key an agent attested last, and when; a renewal makes the key NULL. The same key may come
-- again for a while, since the answer may have been lost. What is there already is left, as in 4.
SET @add_column = (SELECT IF(COUNT(*) > 0, 'DO 0', 'ALTER TABLE nodes
    ADD COLUMN attested_key VARBINARY(32), ADD COLUMN attested_at BIGINT')
    FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'nodes' AND column_name = 'attested_key');
PREPARE add_column FROM @add_column;
EXECUTE add_column;
DEALLOCATE PREPARE add_column;

-- The random number of the last transaction, as it is in the log of changes.
SET @add_column = (SELECT IF(COUNT(*) > 0, 'DO 0', 'ALTER TABLE change_head
    ADD COLUMN last_writer BIGINT NOT NULL DEFAULT 0')
    FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'change_head' AND column_name = 'last_writer');
PREPARE add_column FROM @add_column;
EXECUTE add_column;
DEALLOCATE PREPARE add_column;

-- The oldest version that a server may know to use the tables as they are.
SET @add_column = (SELECT IF(COUNT(*) > 0, 'DO 0', 'ALTER TABLE schema_version
    ADD COLUMN readable_since BIGINT NOT NULL DEFAULT 0')
    FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'schema_version' AND column_name = 'readable_since');
PREPARE add_column FROM @add_column;
EXECUTE add_column;
DEALLOCATE PREPARE add_column;
