//! A small AWS: what an instance finds at its metadata service, and the APIs that are asked about
//! it.

pub mod pkcs7;
