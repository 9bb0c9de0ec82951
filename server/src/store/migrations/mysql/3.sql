-- Where the bundles of other trust domains are fetched, as far as the server's file does not say it.
-- An empty endpoint_spiffe_id means a certificate of the web.
CREATE TABLE IF NOT EXISTS federation_relationships (
    number              BIGINT          NOT NULL PRIMARY KEY,
    trust_domain        VARBINARY(255)  NOT NULL UNIQUE,
    bundle_endpoint_url BLOB            NOT NULL,
    endpoint_spiffe_id  VARBINARY(2048) NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;
