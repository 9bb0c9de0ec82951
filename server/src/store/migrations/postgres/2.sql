-- As for SQLite. All numbers are BIGINT, also truth values (0 or 1) and times (Unix seconds), so that
-- one set of statements serves every kind of database.

-- Whose keys are trusted. `authorities` is packed by bundles.rs.
CREATE TABLE bundles (
    number          BIGINT NOT NULL PRIMARY KEY,
    trust_domain    TEXT   NOT NULL UNIQUE,
    authorities     BYTEA  NOT NULL,
    refresh_hint    BIGINT NOT NULL,
    sequence_number BIGINT NOT NULL
);

-- `selectors`, `federates_with` and `dns_names` hold all of an entry, so that reading it needs no
-- join; the tables of links below only find entries. `identity` is a hash of parent, SPIFFE ID
-- and selectors; it is not unique, since updates may make entries alike.
CREATE TABLE entries (
    number           BIGINT NOT NULL PRIMARY KEY,
    entry_id         TEXT   NOT NULL UNIQUE,
    spiffe_id        TEXT   NOT NULL,
    parent_id        TEXT   NOT NULL,
    identity         BYTEA  NOT NULL,
    selectors        BYTEA  NOT NULL,
    selector_count   BIGINT NOT NULL,
    federates_with   TEXT   NOT NULL,
    federation_count BIGINT NOT NULL,
    dns_names        TEXT   NOT NULL,
    x509_svid_ttl    BIGINT NOT NULL,
    jwt_svid_ttl     BIGINT NOT NULL,
    admin            BIGINT NOT NULL,
    downstream       BIGINT NOT NULL,
    store_svid       BIGINT NOT NULL,
    expires_at       BIGINT NOT NULL, -- 0: never
    hint             TEXT   NOT NULL,
    revision_number  BIGINT NOT NULL,
    created_at       BIGINT NOT NULL,
    attributes       BIGINT           -- bits; NULL: never set
);
CREATE INDEX entries_by_spiffe_id ON entries (spiffe_id, number);
CREATE INDEX entries_by_parent_id ON entries (parent_id, number);
CREATE INDEX entries_by_identity ON entries (identity);
CREATE INDEX entries_by_expiry ON entries (expires_at) WHERE expires_at <> 0;
CREATE INDEX entries_by_hint ON entries (hint, number) WHERE hint <> '';
CREATE INDEX entries_downstream ON entries (number) WHERE downstream = 1;

-- `selector` is a hash. Rows are written and deleted with their entry.
CREATE TABLE entry_selectors (
    selector BYTEA  NOT NULL,
    owner    BIGINT NOT NULL, -- entries.number
    PRIMARY KEY (selector, owner)
);

CREATE TABLE entry_federations (
    trust_domain TEXT   NOT NULL REFERENCES bundles (trust_domain),
    owner        BIGINT NOT NULL, -- entries.number
    PRIMARY KEY (trust_domain, owner)
);

-- An empty serial_number means that the agent is banned.
CREATE TABLE nodes (
    number            BIGINT NOT NULL PRIMARY KEY,
    agent_id          TEXT   NOT NULL UNIQUE,
    attestation_type  TEXT   NOT NULL,
    serial_number     TEXT   NOT NULL,
    expires_at        BIGINT NOT NULL,
    new_serial_number TEXT   NOT NULL,
    new_expires_at    BIGINT,
    can_reattest      BIGINT NOT NULL,
    selectors         BYTEA  NOT NULL,
    selector_count    BIGINT NOT NULL,
    agent_version     TEXT   NOT NULL
);
CREATE INDEX nodes_by_expiry ON nodes (expires_at);

CREATE TABLE node_selectors (
    selector BYTEA  NOT NULL,
    owner    BIGINT NOT NULL, -- nodes.number
    PRIMARY KEY (selector, owner)
);

-- `token` is the SHA-256 of a join token, `redeemed_by` that of the public key it was spent for.
CREATE TABLE join_tokens (
    token       BYTEA  NOT NULL PRIMARY KEY,
    expires_at  BIGINT NOT NULL,
    redeemed_by BYTEA
);
CREATE INDEX join_tokens_by_expiry ON join_tokens (expires_at);

CREATE TABLE ca_journals (
    number                   BIGINT NOT NULL PRIMARY KEY,
    active_x509_authority_id TEXT   NOT NULL,
    data                     BYTEA  NOT NULL,
    expires_at               BIGINT NOT NULL
);
CREATE INDEX ca_journals_by_authority ON ca_journals (active_x509_authority_id);

-- What changed: kind 1 an entry, 2 a node, 3 a bundle. `writer` is a random number of the
-- transaction: by it a server knows its changes again where it lost the connection while it committed,
-- and whoever follows the log a revision that was lost in a failover and given once more.
CREATE TABLE changes (
    revision   BIGINT NOT NULL PRIMARY KEY,
    kind       BIGINT NOT NULL,
    name       TEXT   NOT NULL,
    changed_at BIGINT NOT NULL,
    writer     BIGINT NOT NULL
);

-- One row, which every writer holds: the last revision that was given, the last one that was
-- pruned, and the last number of a row in any table.
CREATE TABLE change_head (
    revision BIGINT NOT NULL,
    pruned   BIGINT NOT NULL,
    number   BIGINT NOT NULL
);
INSERT INTO change_head (revision, pruned, number) VALUES (0, 0, 0);
