//! The authority as a whole, with a clock that is turned and a database in memory.

mod compromise;
mod constraints;
mod following;
mod hanging;
mod issuing;
mod log;
mod no_gap;
mod recovery;
mod restarts;
mod turning;
mod upstream;
mod world;
