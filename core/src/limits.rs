//! All bounds set on outsiders.

use std::time::Duration;

/// Largest gRPC message that a server or an agent takes, in bytes; larger ones are refused with
/// `RESOURCE_EXHAUSTED`.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// Largest request to the Workload API, in bytes: twice the longest token that is checked. Any
/// process of the node may send some, so that this is far less than what a server takes.
pub const MAX_WORKLOAD_REQUEST_BYTES: usize = 128 << 10;

/// Largest evidence of a node, and largest answer to a challenge, in bytes. Chains of certificates
/// and quotes of TPMs stay below a tenth of it.
pub const MAX_EVIDENCE_BYTES: usize = 256 << 10;

/// Largest evidence that is a JSON object, and largest such answer to a challenge, in bytes: about
/// ten times what an instance of a cloud has to show.
pub const MAX_ENVELOPE_BYTES: usize = 64 << 10;

/// What a caller without certificate may send in one call to a server, in bytes. There may be
/// thousands of them.
pub const MAX_UNPROVEN_REQUEST_BYTES: usize = 64 << 10;

/// What an agent may send in one attestation, in bytes: its evidence and its answers to all
/// challenges.
pub const MAX_ATTESTATION_BYTES: usize = 1 << 20;

/// Longest id of an entry in bytes.
pub const MAX_ENTRY_ID_BYTES: usize = 255;

/// Longest hint of an entry in bytes.
///
/// # Source
/// SPIFFE Workload API, 8.
pub const MAX_HINT_BYTES: usize = 1024;

/// Entries, ids or certificate requests in one call or one page between agent and server.
pub const MAX_SYNC_PAGE: usize = 500;

/// Longest path of a Unix socket in bytes: what its address holds, less the final zero.
pub const MAX_SOCKET_PATH_BYTES: usize = 107;

/// How long a remote call may take unless its own rule says otherwise.
pub const REMOTE_CALL: Duration = Duration::from_secs(30);

/// How long a peer may take for a TLS handshake.
pub const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long an orderly stop may take before connections are cut.
pub const GRACEFUL_STOP: Duration = Duration::from_secs(10);

/// Selectors, federated trust domains or DNS names of one entry.
pub const MAX_ENTRY_ITEMS: usize = 1000;

/// Longest selector of an entry in bytes, type and value together.
pub const MAX_ENTRY_ITEM_BYTES: usize = 8192;

/// Largest certificate or certificate request in bytes that is read.
pub const MAX_CERTIFICATE_BYTES: usize = 64 << 10;

/// Longest serial number of a certificate in bytes.
///
/// # Source
/// RFC 5280, 4.1.2.2 allows 20; some CAs give longer ones.
pub const MAX_SERIAL_BYTES: usize = 64;

/// Most certificates in a chain that is checked.
pub const MAX_CHAIN_CERTIFICATES: usize = 16;

/// Audiences of one JWT-SVID.
pub const MAX_AUDIENCES: usize = 100;

/// Longest audience of a JWT-SVID in bytes.
pub const MAX_AUDIENCE_BYTES: usize = 4096;

/// Longest JWT-SVID in bytes that is checked.
pub const MAX_JWT_BYTES: usize = 64 << 10;

/// Largest file in bytes that a command reads for an operator, such as one of entries.
pub const MAX_OPERATOR_FILE_BYTES: u64 = 256 << 20;

/// Largest file in bytes in which an agent keeps what its workloads may be handed after a restart.
pub const MAX_CACHE_FILE_BYTES: u64 = 64 << 20;

/// Largest bundle document in bytes that is read.
pub const MAX_BUNDLE_BYTES: usize = 4 << 20;

/// How long a command of an operator waits for an answer: long enough for a batch that writes
/// thousands of entries on a busy database.
pub const OPERATOR_CALL: Duration = Duration::from_secs(300);
