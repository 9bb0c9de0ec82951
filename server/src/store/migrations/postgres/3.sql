-- Where the bundles of other trust domains are fetched, as far as the server's file does not say it.
-- An empty endpoint_spiffe_id means a certificate of the web.
CREATE TABLE federation_relationships (
    number              BIGINT NOT NULL PRIMARY KEY,
    trust_domain        TEXT   NOT NULL UNIQUE,
    bundle_endpoint_url TEXT   NOT NULL,
    endpoint_spiffe_id  TEXT   NOT NULL
);
