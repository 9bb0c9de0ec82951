//! A calling process → selectors.

pub mod caller;
mod names;
pub mod unix;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures::future::join_all;
use spire_core::selector::Selector;
use spire_core::telemetry::log::with_causes;
use spire_core::workload::WorkloadAttestor;

use caller::Caller;

/// The workload attestors of this agent, by name. Cheap to clone.
#[derive(Clone)]
pub struct WorkloadAttestors(Arc<ArcSwap<Named>>);

type Named = Vec<(&'static str, Arc<dyn WorkloadAttestor>)>;

impl fmt::Debug for WorkloadAttestors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.0.load().iter().map(|(name, _)| name)).finish()
    }
}

/// Nothing can be said of a caller. What went wrong is in the log; the caller learns no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("workload attestation failed")]
pub struct AttestationFailed;

impl WorkloadAttestors {
    /// All of `attestors`, which are asked side by side.
    pub fn new(attestors: Vec<(&'static str, Arc<dyn WorkloadAttestor>)>) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(attestors)))
    }

    /// Puts `attestor` in the place of the one with this name, for all clones.
    pub fn replace(&self, name: &'static str, attestor: Arc<dyn WorkloadAttestor>) {
        let others = |named: &Named| {
            let others = named.iter().filter(|(other, _)| *other != name).cloned();
            others.chain([(name, attestor.clone())]).collect::<Named>()
        };
        self.0.rcu(|named| others(named));
    }

    /// Everything that the attestors find about `caller`, who must still be the one who connected
    /// when they are done.
    ///
    /// # Errors
    /// [`AttestationFailed`] where all attestors failed, or the caller is gone.
    pub async fn attest(&self, caller: &Caller) -> Result<BTreeSet<Selector>, AttestationFailed> {
        let process = caller.process();
        let attestors = self.0.load_full();
        let asked = attestors.iter().map(|(name, attestor)| async move {
            attestor.attest(process).await.map_err(|error| {
                tracing::error!(
                    subsystem_name = "workload_attestor",
                    plugin_name = *name,
                    pid = process.pid,
                    error = %error,
                    "Failed to collect all selectors for PID"
                );
            })
        });
        let answers = join_all(asked).await;
        if !answers.is_empty() && answers.iter().all(Result::is_err) {
            return Err(AttestationFailed);
        }
        caller.check().map_err(|error| {
            tracing::error!(
                subsystem_name = "workload_attestor",
                pid = process.pid,
                error = with_causes(&error),
                "Caller is not the process that connected"
            );
            AttestationFailed
        })?;
        Ok(answers.into_iter().flatten().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use spire_core::workload::{Process, WorkloadError};
    use tokio::net::UnixStream;

    use super::*;

    struct Fixed(Result<&'static str, &'static str>);

    #[async_trait]
    impl WorkloadAttestor for Fixed {
        async fn attest(&self, _: &Process) -> Result<Vec<Selector>, WorkloadError> {
            match self.0 {
                Ok(selector) => Ok(vec![selector.parse().unwrap()]),
                Err(error) => Err(WorkloadError(error.to_owned())),
            }
        }
    }

    async fn attest(answers: &[Result<&'static str, &'static str>]) -> Result<usize, ()> {
        let attestors = answers
            .iter()
            .map(|answer| ("fixed", Arc::new(Fixed(*answer)) as Arc<dyn WorkloadAttestor>));
        let attestors = WorkloadAttestors::new(attestors.collect());
        let (stream, _other) = UnixStream::pair().unwrap();
        let caller = Caller::of(&stream).unwrap();
        attestors.attest(&caller).await.map(|found| found.len()).map_err(drop)
    }

    #[tokio::test]
    async fn one_that_takes_anothers_place_is_asked_in_its_stead() {
        let attestor = |selector| Arc::new(Fixed(Ok(selector))) as Arc<dyn WorkloadAttestor>;
        let attestors =
            WorkloadAttestors::new(vec![("a", attestor("a:1")), ("b", attestor("b:1"))]);
        attestors.clone().replace("a", attestor("a:2"));
        let (stream, _other) = UnixStream::pair().unwrap();
        let found = attestors.attest(&Caller::of(&stream).unwrap()).await.unwrap();
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, ["a:2", "b:1"]);
    }

    #[tokio::test]
    async fn what_all_find_is_put_together_and_one_failure_costs_no_more() {
        assert_eq!(attest(&[Ok("a:1"), Ok("b:1"), Ok("a:1")]).await, Ok(2));
        assert_eq!(attest(&[Ok("a:1"), Err("broken")]).await, Ok(1));
        assert_eq!(attest(&[Err("broken"), Err("broken")]).await, Err(()));
    }
}
