-- What lists of agents are filtered by, each in the order of the pages. MySQL cannot be told to add
-- only what is missing, as after a crash before the version was noted.
SET @add_keys = (SELECT IF(COUNT(*) > 0, 'DO 0', 'ALTER TABLE nodes
    ADD KEY nodes_by_attestation_type (attestation_type, number),
    ADD KEY nodes_banned (serial_number, number),
    ADD KEY nodes_by_can_reattest (can_reattest, number)')
    FROM information_schema.statistics
    WHERE table_schema = DATABASE() AND table_name = 'nodes' AND index_name = 'nodes_banned');
PREPARE add_keys FROM @add_keys;
EXECUTE add_keys;
DEALLOCATE PREPARE add_keys;
