//! Fakes of clouds that speak the real protocols on real ports.
