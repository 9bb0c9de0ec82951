//! What an SVID must contain, how it is signed, and how it is checked.

pub mod jwt;
pub mod x509;
