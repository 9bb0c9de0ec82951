//! PostgreSQL tells who listens that another server has committed.

use std::io;
use std::time::Duration;

use sqlx::Executor;
use sqlx::pool::PoolOptions;
use sqlx::postgres::{PgConnectOptions, PgListener};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Revision;
use crate::store::changes::tell;

/// As in the notification of the dialect.
const CHANNEL: &str = "spire_changes";

/// How long the database is left alone after the connection was lost.
const PAUSE: Duration = Duration::from_secs(2);

/// How long the connection may take to open.
const OPENING: Duration = Duration::from_secs(5);

/// After how long a silence the connection is tried, and how long the answer may take: a database
/// that vanishes with its machine does not take leave.
const SILENCE: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(5);

/// Listens until `stop` fires, each time for `lifetime` at most, and pokes `changed` with what it
/// hears. What is missed while the connection is away is found by those who look from time to time.
pub(in crate::store) async fn listen(
    options: PgConnectOptions,
    changed: watch::Sender<Revision>,
    lifetime: Option<Duration>,
    stop: CancellationToken,
) {
    let mut is_heard = true;
    loop {
        let heard = timeout(lifetime.unwrap_or(Duration::MAX), hear(&options, &changed, SILENCE));
        let Some(outcome) = stop.run_until_cancelled(heard).await else { return };
        // Where its time was up it is replaced at once.
        let Ok(outcome) = outcome else { continue };
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
    silence: Duration,
) -> Result<(), sqlx::Error> {
    let pool = PoolOptions::new().max_connections(1).acquire_timeout(OPENING);
    let pool = pool.connect_lazy_with(options.clone());
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.ignore_pool_close_event(true);
    listener.listen(CHANNEL).await?;
    // Nobody has told what was committed until now.
    changed.send_modify(|_| ());
    loop {
        let Ok(heard) = timeout(silence, listener.try_recv()).await else {
            let answer = timeout(ANSWER, listener.execute("SELECT 1")).await;
            answer.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            continue;
        };
        let Some(notification) = heard? else { return Ok(()) };
        match notification.payload().parse().map(Revision) {
            // It is late, or the log has fallen back: whoever follows it finds out.
            Ok(revision) if revision < *changed.borrow() => changed.send_modify(|_| ()),
            Ok(revision) => tell(changed, revision),
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use spire_test_databases::{Database, Engine, Proxy, Server};

    use super::*;
    use crate::store::Settings;
    use crate::store::dialect::Place;

    #[tokio::test]
    async fn a_silent_connection_is_kept_and_one_that_leads_nowhere_is_given_up() {
        let server = Arc::new(Server::start(Engine::Postgres).await.unwrap());
        let database = Database::on(&server).await.unwrap();
        let proxy = Proxy::to(server.address().unwrap()).await.unwrap();
        let settings = Settings::new("postgres", &database.through(&proxy).unwrap()).unwrap();
        let Place::Postgres(options) = settings.place().unwrap() else { panic!("a PostgreSQL") };
        let (changed, mut known) = watch::channel(Revision(0));
        let silence = Duration::from_millis(20);
        let hearing = tokio::spawn(async move { hear(&options, &changed, silence).await });
        let notify = async |revision: u64| {
            database.execute(&format!("NOTIFY {CHANNEL}, '{revision}'")).await.unwrap();
        };
        let mut poked = async || {
            let poked = timeout(Duration::from_secs(30), known.changed()).await;
            poked.expect("nobody was poked").unwrap();
            *known.borrow_and_update()
        };
        assert_eq!(poked().await, Revision(0), "what came before it listened is looked for");
        notify(7).await;
        assert_eq!(poked().await, Revision(7));
        sleep(silence * 20).await;
        for (told, expected) in [(9, 9), (8, 9)] {
            notify(told).await;
            assert_eq!(poked().await, Revision(expected), "it hears after many silences");
        }
        proxy.hold(true);
        let given_up = timeout(ANSWER * 5, hearing).await.expect("it waits for ever").unwrap();
        assert!(matches!(given_up, Err(sqlx::Error::Io(_))), "{given_up:?}");
    }
}
