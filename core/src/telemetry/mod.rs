//! What operators see of a process: logs and health.

pub mod health;
mod level;
mod line;
pub mod log;
