//! PostgreSQL tells who listens that another server has committed.

use std::time::Duration;

use sqlx::pool::PoolOptions;
use sqlx::postgres::{PgConnectOptions, PgListener};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Revision;

/// As in the notification of the dialect.
const CHANNEL: &str = "spire_changes";

/// How long the database is left alone after the connection was lost.
const PAUSE: Duration = Duration::from_secs(2);

/// How long the connection may take to open.
const OPENING: Duration = Duration::from_secs(5);

/// Listens until `stop` fires, and pokes `changed` with what it hears. What is missed while the
/// connection is away is found by those who look from time to time.
pub(in crate::store) async fn listen(
    options: PgConnectOptions,
    changed: watch::Sender<Revision>,
    stop: CancellationToken,
) {
    let mut is_heard = true;
    loop {
        let Some(outcome) = stop.run_until_cancelled(hear(&options, &changed)).await else {
            return;
        };
        if let Err(error) = outcome
            && std::mem::replace(&mut is_heard, false)
        {
            tracing::warn!(
                subsystem_name = "datastore",
                %error,
                "Datastore does not tell of other servers' changes; they are looked for instead"
            );
        }
        if stop.run_until_cancelled(sleep(PAUSE)).await.is_none() {
            return;
        }
    }
}

/// Listens on one connection until that is lost.
async fn hear(
    options: &PgConnectOptions,
    changed: &watch::Sender<Revision>,
) -> Result<(), sqlx::Error> {
    let pool = PoolOptions::new().max_connections(1).acquire_timeout(OPENING);
    let pool = pool.connect_lazy_with(options.clone());
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.ignore_pool_close_event(true);
    listener.listen(CHANNEL).await?;
    while let Some(notification) = listener.try_recv().await? {
        if let Ok(revision) = notification.payload().parse() {
            tell(changed, Revision(revision));
        }
    }
    Ok(())
}

/// Pokes those who follow the log, unless they know of `revision`.
pub(in crate::store) fn tell(changed: &watch::Sender<Revision>, revision: Revision) {
    changed.send_if_modified(|known| {
        let newer = *known < revision;
        *known = revision.max(*known);
        newer
    });
}
