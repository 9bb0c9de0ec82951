//! SVIDs as the server's API carries them.

use jiff::Timestamp;

use crate::id::SpiffeId;
use crate::svid::x509::X509Svid;
use crate::wire::types;

/// Writes an X.509-SVID. Its hint is the entry's, empty where there is none.
pub fn x509(svid: X509Svid, hint: &str) -> types::X509svid {
    types::X509svid {
        id: Some((&svid.id).into()),
        expires_at: svid.expires_at.as_second(),
        cert_chain: svid.chain,
        hint: hint.to_owned(),
    }
}

/// Writes a JWT-SVID. Its hint is the entry's, empty where there is none.
pub fn jwt(
    token: String,
    id: &SpiffeId,
    issued_at: Timestamp,
    expires_at: Timestamp,
    hint: &str,
) -> types::Jwtsvid {
    types::Jwtsvid {
        token,
        id: Some(id.into()),
        expires_at: expires_at.as_second(),
        issued_at: issued_at.as_second(),
        hint: hint.to_owned(),
    }
}
