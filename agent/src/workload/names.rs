//! Names of users and groups, kept for a few seconds: the system database may be far away.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a name is taken for true.
const KEPT: Duration = Duration::from_secs(5);
/// Most names kept at a time.
const MAX_NAMES: usize = 4096;

/// The names of one kind.
pub(super) struct Names {
    look_up: fn(u32) -> Option<String>,
    known: Mutex<HashMap<u32, (Instant, Option<String>)>>,
}

impl Names {
    pub(super) fn users() -> Self {
        Self::looked_up_by(|id| Some(uzers::get_user_by_uid(id)?.name().to_str()?.to_owned()))
    }

    pub(super) fn groups() -> Self {
        Self::looked_up_by(|id| Some(uzers::get_group_by_gid(id)?.name().to_str()?.to_owned()))
    }

    fn looked_up_by(look_up: fn(u32) -> Option<String>) -> Self {
        Self { look_up, known: Mutex::default() }
    }

    /// The name of `id`, or nothing where it has none. The system is asked off the async threads.
    pub(super) async fn of(&self, id: u32) -> Option<String> {
        if let Some(name) = self.known(id) {
            return name;
        }
        let look_up = self.look_up;
        let name = tokio::task::spawn_blocking(move || look_up(id)).await.ok().flatten();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_NAMES {
            known.clear();
        }
        known.insert(id, (Instant::now(), name.clone()));
        name
    }

    fn known(&self, id: u32) -> Option<Option<String>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, name) = known.get(&id)?;
        (since.elapsed() < KEPT).then(|| name.clone())
    }
}
