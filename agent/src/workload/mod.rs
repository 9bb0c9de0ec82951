//! A calling process → selectors.

pub mod caller;
mod names;
pub mod unix;

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::join_all;
use spire_core::selector::Selector;
use spire_core::telemetry::log::with_causes;
use spire_core::workload::WorkloadAttestor;

use caller::Caller;

/// The workload attestors of this agent, by name. Cheap to clone.
#[derive(Clone)]
pub struct WorkloadAttestors(Arc<[(&'static str, Arc<dyn WorkloadAttestor>)]>);

/// Nothing can be said of a caller. What went wrong is in the log; the caller learns no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("workload attestation failed")]
pub struct AttestationFailed;

impl WorkloadAttestors {
    /// All of `attestors`, which are asked side by side.
    pub fn new(attestors: Vec<(&'static str, Arc<dyn WorkloadAttestor>)>) -> Self {
        Self(attestors.into())
    }

    /// Everything that the attestors find about `caller`, who must still be the one who connected
    /// when they are done.
    ///
    /// # Errors
    /// [`AttestationFailed`] where all attestors failed, or the caller is gone.
    pub async fn attest(&self, caller: &Caller) -> Result<BTreeSet<Selector>, AttestationFailed> {
        let process = caller.process();
        let asked = self.0.iter().map(|(name, attestor)| async move {
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
    async fn what_all_find_is_put_together_and_one_failure_costs_no_more() {
        assert_eq!(attest(&[Ok("a:1"), Ok("b:1"), Ok("a:1")]).await, Ok(2));
        assert_eq!(attest(&[Ok("a:1"), Err("broken")]).await, Ok(1));
        assert_eq!(attest(&[Err("broken"), Err("broken")]).await, Err(()));
    }
}
