//! Stories that the real programs go through as real processes, one file each.
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

mod evidence;
mod demo;
mod hostile;
mod kill;
mod mistakes;
mod quick_start;
mod rotation;
