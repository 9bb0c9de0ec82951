//! How long something takes, on a machine that does other things besides.

use std::time::{Duration, Instant};

/// How often it is tried.
const TRIES: usize = 5;

/// The shortest time that `run` takes in a few tries: what it costs, were nothing else to do. There
/// are no more tries once one took less than `enough`.
pub async fn shortest(enough: Duration, mut run: impl AsyncFnMut()) -> Duration {
    let mut shortest = Duration::MAX;
    for _ in 0..TRIES {
        let began = Instant::now();
        run().await;
        shortest = shortest.min(began.elapsed());
        if shortest < enough {
            break;
        }
    }
    shortest
}
