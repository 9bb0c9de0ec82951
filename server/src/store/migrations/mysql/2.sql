-- As for SQLite. Texts are bytes, since MySQL's own texts are equal where they differ in case, accents
-- or spaces at the end. What creates tables commits by itself here: all can be run again.

-- Whose keys are trusted. `authorities` is packed by bundles.rs.
CREATE TABLE IF NOT EXISTS bundles (
    number          BIGINT          NOT NULL PRIMARY KEY,
    trust_domain    VARBINARY(255)  NOT NULL UNIQUE,
    authorities     LONGBLOB        NOT NULL,
    refresh_hint    BIGINT          NOT NULL,
    sequence_number BIGINT          NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;

-- `selectors`, `federates_with` and `dns_names` hold all of an entry, so that reading it needs no
-- join; the tables of links below only find entries. `identity` is a hash of parent, SPIFFE ID
-- and selectors; it is not unique, since updates may make entries alike.
CREATE TABLE IF NOT EXISTS entries (
    number           BIGINT          NOT NULL PRIMARY KEY,
    entry_id         VARBINARY(255)  NOT NULL UNIQUE,
    spiffe_id        VARBINARY(2048) NOT NULL,
    parent_id        VARBINARY(2048) NOT NULL,
    identity         VARBINARY(16)   NOT NULL,
    selectors        MEDIUMBLOB      NOT NULL,
    selector_count   BIGINT          NOT NULL,
    federates_with   MEDIUMBLOB      NOT NULL,
    federation_count BIGINT          NOT NULL,
    dns_names        MEDIUMBLOB      NOT NULL,
    x509_svid_ttl    BIGINT          NOT NULL,
    jwt_svid_ttl     BIGINT          NOT NULL,
    admin            BIGINT          NOT NULL,
    downstream       BIGINT          NOT NULL,
    store_svid       BIGINT          NOT NULL,
    expires_at       BIGINT          NOT NULL, -- 0: never
    hint             VARBINARY(1024) NOT NULL,
    revision_number  BIGINT          NOT NULL,
    created_at       BIGINT          NOT NULL,
    attributes       BIGINT, -- bits; NULL: never set
    KEY entries_by_spiffe_id (spiffe_id, number),
    KEY entries_by_parent_id (parent_id, number),
    KEY entries_by_identity (identity),
    KEY entries_by_expiry (expires_at),
    KEY entries_by_hint (hint, number),
    KEY entries_downstream (downstream, number)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;

-- `selector` is a hash. Rows are written and deleted with their entry.
CREATE TABLE IF NOT EXISTS entry_selectors (
    selector VARBINARY(16)   NOT NULL,
    owner    BIGINT          NOT NULL, -- entries.number
    PRIMARY KEY (selector, owner)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;

CREATE TABLE IF NOT EXISTS entry_federations (
    trust_domain VARBINARY(255)  NOT NULL,
    owner        BIGINT          NOT NULL, -- entries.number
    PRIMARY KEY (trust_domain, owner),
    FOREIGN KEY (trust_domain) REFERENCES bundles (trust_domain)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;

-- An empty serial_number means that the agent is banned.
CREATE TABLE IF NOT EXISTS nodes (
    number            BIGINT          NOT NULL PRIMARY KEY,
    agent_id          VARBINARY(2048) NOT NULL UNIQUE,
    attestation_type  VARBINARY(255)  NOT NULL,
    serial_number     VARBINARY(255)  NOT NULL,
    expires_at        BIGINT          NOT NULL,
    new_serial_number VARBINARY(255)  NOT NULL,
    new_expires_at    BIGINT,
    can_reattest      BIGINT          NOT NULL,
    selectors         MEDIUMBLOB      NOT NULL,
    selector_count    BIGINT          NOT NULL,
    agent_version     VARBINARY(1024) NOT NULL,
    KEY nodes_by_expiry (expires_at)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;

CREATE TABLE IF NOT EXISTS node_selectors (
    selector VARBINARY(16)   NOT NULL,
    owner    BIGINT          NOT NULL, -- nodes.number
    PRIMARY KEY (selector, owner)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;

-- `token` is the SHA-256 of a join token, `redeemed_by` that of the public key it was spent for.
CREATE TABLE IF NOT EXISTS join_tokens (
    token       VARBINARY(32)   NOT NULL PRIMARY KEY,
    expires_at  BIGINT          NOT NULL,
    redeemed_by VARBINARY(32),
    KEY join_tokens_by_expiry (expires_at)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;

CREATE TABLE IF NOT EXISTS ca_journals (
    number                   BIGINT          NOT NULL PRIMARY KEY,
    active_x509_authority_id VARBINARY(255)  NOT NULL,
    data                     LONGBLOB        NOT NULL,
    expires_at               BIGINT          NOT NULL,
    KEY ca_journals_by_authority (active_x509_authority_id)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;

-- What changed: kind 1 an entry, 2 a node, 3 a bundle. `writer` is a random number of the
-- transaction: by it a server knows its changes again where it lost the connection while it committed,
-- and whoever follows the log a revision that was lost in a failover and given once more.
CREATE TABLE IF NOT EXISTS changes (
    revision   BIGINT          NOT NULL PRIMARY KEY,
    kind       BIGINT          NOT NULL,
    name       VARBINARY(2048) NOT NULL,
    changed_at BIGINT          NOT NULL,
    writer     BIGINT          NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;

-- One row, which every writer holds: the last revision that was given, the last one that was
-- pruned, and the last number of a row in any table.
CREATE TABLE IF NOT EXISTS change_head (
    one      BIGINT NOT NULL PRIMARY KEY,
    revision BIGINT NOT NULL,
    pruned   BIGINT NOT NULL,
    number   BIGINT NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;
INSERT IGNORE INTO change_head (one, revision, pruned, number) VALUES (1, 0, 0, 0);
