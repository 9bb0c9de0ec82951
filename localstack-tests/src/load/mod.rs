//! What the load programs share: a program under load and what the kernel counts for it, a server,
//! calls that are timed, and the table in which the figures are told.
//!
//! A load program runs on one thread, so that the program under load has the other cores to
//! itself. Times of calls depend on the machine and on what else it does; CPU time hardly does.

mod node;
mod process;
mod server;
mod table;
mod times;

pub use node::{Agent, Node, Nodes};
pub use process::{Process, binary, free_port, resident};
pub use server::{Server, unix_channel};
pub use table::Table;
pub use times::{Times, drive};
