//! What an attestor looked at on its way to a verdict: a refusal's line in the log is made of it,
//! and an operator can have it shown for evidence that was written down.

use std::fmt::Display;

use serde::Serialize;

use super::AttestError;

/// Most characters of a node's name that are kept: it is not proven, and each refusal logs it.
const MAX_CLAIM: usize = 256;

/// The checks of one attestation in their order, and what they were about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Examination {
    /// The node that the evidence speaks of, as its cloud names it. It is not proven unless the
    /// checks are.
    pub claimed: Option<String>,
    /// What the cloud called the last request to it, so that its support can find it.
    pub cloud_request_id: Option<String>,
    /// What was made sure of, in this order.
    pub checks: Vec<Check>,
}

/// One thing that an attestor makes sure of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What it is called, such as `document signature`.
    pub name: &'static str,
    /// How it went.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// How a check went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", content = "reason", rename_all = "lowercase")]
pub enum Outcome {
    /// It holds.
    Passed,
    /// It does not hold, or could not be made; the text says why.
    Failed(String),
    /// It was left out; the text says why.
    Skipped(String),
}

impl Examination {
    /// Names the node that the evidence speaks of, by 256 characters at most and without those that
    /// control a terminal.
    pub fn claim(&mut self, node: impl Display) {
        let name = node.to_string();
        let shown = name.chars().filter(|character| !character.is_control()).take(MAX_CLAIM);
        self.claimed = Some(shown.collect());
    }

    /// Remembers the cloud's name of a request.
    pub fn asked(&mut self, request_id: Option<&str>) {
        if let Some(id) = request_id {
            self.cloud_request_id = Some(id.to_owned());
        }
    }

    /// Writes down how the check `name` went and hands its result on.
    ///
    /// # Errors
    /// That of `result`.
    pub fn check<T>(
        &mut self,
        name: &'static str,
        result: Result<T, AttestError>,
    ) -> Result<T, AttestError> {
        let outcome = match &result {
            Ok(_) => Outcome::Passed,
            Err(error) => Outcome::Failed(error.to_string()),
        };
        self.checks.push(Check { name, outcome });
        result
    }

    /// Writes down that the check `name` was left out.
    pub fn skip(&mut self, name: &'static str, why: impl Into<String>) {
        self.checks.push(Check { name, outcome: Outcome::Skipped(why.into()) });
    }

    /// The check that failed, if one has.
    pub fn failed(&self) -> Option<&Check> {
        self.checks.iter().find(|check| matches!(check.outcome, Outcome::Failed(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_nodes_are_short_and_plain() {
        let mut examination = Examination::default();
        examination.claim(format_args!("a/\x1b[2J\n{}", "ä".repeat(60_000)));
        let expected = format!("a/[2J{}", "ä".repeat(251));
        assert_eq!(examination.claimed, Some(expected));
    }

    #[test]
    fn checks_are_kept_in_their_order_with_how_they_went() {
        let mut examination = Examination::default();
        assert_eq!(examination.check("shape", Ok(7)).unwrap(), 7);
        examination.skip("nonce", "no node is there to answer");
        assert_eq!(examination.failed(), None);
        let refused = Err::<(), _>(AttestError::Refused("no".to_owned()));
        examination.check("account", refused).unwrap_err();
        assert_eq!(examination.failed().unwrap().name, "account");
        assert_eq!(
            serde_json::to_value(&examination.checks).unwrap(),
            serde_json::json!([
                {"name": "shape", "outcome": "passed"},
                {"name": "nonce", "outcome": "skipped", "reason": "no node is there to answer"},
                {"name": "account", "outcome": "failed", "reason": "no"},
            ])
        );
    }
}
