//! Copying a database into another one, of any kind: `spire-server datastore copy`.
//!
//! A [`records::Source`] gives the records as they were at one moment, in the server's vocabulary
//! and in bounded batches. One source reads the server's own tables; another reads those of SPIRE.

mod error;
mod records;
mod snapshot;

pub use error::CopyError;
pub use records::{Cause, Kind, Remark, Skipped};

/// How many records are read at a time.
const BATCH: u32 = 1000;
