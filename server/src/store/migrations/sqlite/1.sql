-- Times are Unix seconds; truth values are 0 or 1. `number` gives the order of creation and is
-- never given twice, so that it can serve as page token.

-- Whose keys are trusted. `authorities` is packed by bundles.rs.
CREATE TABLE bundles (
    number          INTEGER PRIMARY KEY AUTOINCREMENT,
    trust_domain    TEXT    NOT NULL UNIQUE,
    authorities     BLOB    NOT NULL,
    refresh_hint    INTEGER NOT NULL,
    sequence_number INTEGER NOT NULL
);

-- `selectors`, `federates_with` and `dns_names` hold all of an entry, so that reading it needs no
-- join; the tables of links below only find entries. `identity` is a hash of parent, SPIFFE ID
-- and selectors; it is not unique, since updates may make entries alike.
CREATE TABLE entries (
    number           INTEGER PRIMARY KEY AUTOINCREMENT,
    entry_id         TEXT    NOT NULL UNIQUE,
    spiffe_id        TEXT    NOT NULL,
    parent_id        TEXT    NOT NULL,
    identity         BLOB    NOT NULL,
    selectors        BLOB    NOT NULL,
    selector_count   INTEGER NOT NULL,
    federates_with   TEXT    NOT NULL,
    federation_count INTEGER NOT NULL,
    dns_names        TEXT    NOT NULL,
    x509_svid_ttl    INTEGER NOT NULL,
    jwt_svid_ttl     INTEGER NOT NULL,
    admin            INTEGER NOT NULL,
    downstream       INTEGER NOT NULL,
    store_svid       INTEGER NOT NULL,
    expires_at       INTEGER NOT NULL, -- 0: never
    hint             TEXT    NOT NULL,
    revision_number  INTEGER NOT NULL,
    created_at       INTEGER NOT NULL,
    attributes       INTEGER           -- bits; NULL: never set
);
CREATE INDEX entries_by_spiffe_id ON entries (spiffe_id);
CREATE INDEX entries_by_parent_id ON entries (parent_id);
CREATE INDEX entries_by_identity ON entries (identity);
CREATE INDEX entries_by_expiry ON entries (expires_at) WHERE expires_at <> 0;
CREATE INDEX entries_by_hint ON entries (hint) WHERE hint <> '';
CREATE INDEX entries_downstream ON entries (downstream) WHERE downstream = 1;

-- `selector` is a hash. Rows are written and deleted with their entry; no key refers to it, since
-- that would need a second index of the same size.
CREATE TABLE entry_selectors (
    selector BLOB    NOT NULL,
    owner    INTEGER NOT NULL, -- entries.number
    PRIMARY KEY (selector, owner)
) WITHOUT ROWID;

CREATE TABLE entry_federations (
    trust_domain TEXT    NOT NULL REFERENCES bundles (trust_domain),
    owner        INTEGER NOT NULL, -- entries.number
    PRIMARY KEY (trust_domain, owner)
) WITHOUT ROWID;

-- An empty serial_number means that the agent is banned.
CREATE TABLE nodes (
    number            INTEGER PRIMARY KEY AUTOINCREMENT,
    agent_id          TEXT    NOT NULL UNIQUE,
    attestation_type  TEXT    NOT NULL,
    serial_number     TEXT    NOT NULL,
    expires_at        INTEGER NOT NULL,
    new_serial_number TEXT    NOT NULL,
    new_expires_at    INTEGER,
    can_reattest      INTEGER NOT NULL,
    selectors         BLOB    NOT NULL,
    selector_count    INTEGER NOT NULL,
    agent_version     TEXT    NOT NULL
);
CREATE INDEX nodes_by_expiry ON nodes (expires_at);

CREATE TABLE node_selectors (
    selector BLOB    NOT NULL,
    owner    INTEGER NOT NULL, -- nodes.number
    PRIMARY KEY (selector, owner)
) WITHOUT ROWID;

-- `token` is the SHA-256 of a join token, `redeemed_by` that of the public key it was spent for.
CREATE TABLE join_tokens (
    token       BLOB    NOT NULL PRIMARY KEY,
    expires_at  INTEGER NOT NULL,
    redeemed_by BLOB
) WITHOUT ROWID;
CREATE INDEX join_tokens_by_expiry ON join_tokens (expires_at);

CREATE TABLE ca_journals (
    number                   INTEGER PRIMARY KEY AUTOINCREMENT,
    active_x509_authority_id TEXT    NOT NULL,
    data                     BLOB    NOT NULL,
    expires_at               INTEGER NOT NULL
);
CREATE INDEX ca_journals_by_authority ON ca_journals (active_x509_authority_id);

-- What changed: kind 1 an entry, 2 a node, 3 a bundle.
CREATE TABLE changes (
    revision   INTEGER PRIMARY KEY,
    kind       INTEGER NOT NULL,
    name       TEXT    NOT NULL,
    changed_at INTEGER NOT NULL
);

-- One row: the last revision that was given, and the last one that was pruned.
CREATE TABLE change_head (
    revision INTEGER NOT NULL,
    pruned   INTEGER NOT NULL
);
INSERT INTO change_head (revision, pruned) VALUES (0, 0);
