//! Upstream authorities: what the server's CA can hang below.
