//! What an input may cost.

use std::time::{Duration, Instant};

/// A tenth of a second of a program as it is released; sanitizers make it many times slower.
const LIMIT: Duration =
    if cfg!(feature = "unsanitized") { Duration::from_millis(100) } else { Duration::from_secs(1) };

/// How often an input may take longer, since the machine has other things to do or what is made
/// once was made for it.
const TRIES: usize = 5;

/// Runs `check` over an input.
///
/// # Panics
/// Where the input costs too much.
pub(crate) fn in_time(check: impl Fn()) {
    let mut shortest = Duration::MAX;
    for _ in 0..TRIES {
        let began = Instant::now();
        check();
        shortest = shortest.min(began.elapsed());
        if shortest < LIMIT {
            return;
        }
    }
    panic!("an input takes {shortest:?}");
}
