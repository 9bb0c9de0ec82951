//! Questions to Azure whose answers a section needs before it counts as right.

use std::time::Duration;

use spire_core::catalog::PluginError;

/// How long one of them may take, all attempts together: less than [`ANSWERS`], so that it is told
/// why there is no answer.
pub(crate) const ANSWER: Duration = Duration::from_secs(8);
/// How long all of them may take.
const ANSWERS: Duration = Duration::from_secs(10);

/// Waits for the answer to `question`, which has a runtime of its own: sections are read where
/// nothing can be awaited.
///
/// # Errors
/// [`PluginError::Unusable`] with the error of `question`, or that it took too long.
pub(crate) fn answer<T: Send>(
    question: impl Future<Output = Result<T, String>> + Send,
) -> Result<T, PluginError> {
    let asked = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| error.to_string())?;
            runtime
                .block_on(async { tokio::time::timeout(ANSWERS, question).await })
                .unwrap_or_else(|_| Err(format!("no answer within {} s", ANSWERS.as_secs())))
        });
        thread.join().unwrap_or_else(|_| Err("the question to Azure broke off".to_owned()))
    });
    asked.map_err(PluginError::Unusable)
}
