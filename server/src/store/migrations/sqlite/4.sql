-- What lists of agents are filtered by, each in the order of the pages.
CREATE INDEX nodes_by_attestation_type ON nodes (attestation_type);
CREATE INDEX nodes_banned ON nodes (serial_number) WHERE serial_number = '';
CREATE INDEX nodes_by_can_reattest ON nodes (can_reattest);
