//! What `validate` says about a file and the settings of its plugins.

use std::fmt::{self, Write as _};

use super::mistake::ConfigErrors;
use super::plugins::PluginConfig;
use crate::catalog::{CatalogError, PluginError};

/// What `validate` prints, with line ends where there are any, and whether it exits 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Goes to the standard output.
    pub stdout: String,
    /// Goes to the standard error.
    pub stderr: String,
    /// Whether the file holds.
    pub valid: bool,
}

/// Gathers what is wrong with plugins' settings. `program` is `server` or `agent`.
#[derive(Debug)]
pub struct Validation {
    program: &'static str,
    findings: Vec<(String, ConfigErrors)>,
    aborted: Option<String>,
}

impl Validation {
    /// Nothing was found so far.
    pub fn of(program: &'static str) -> Self {
        Self { program, findings: Vec::new(), aborted: None }
    }

    /// The file itself does not hold: nothing else can be said.
    pub fn refuse(self, error: &dyn fmt::Display) -> Verdict {
        let stderr = format!("SPIRE {} configuration file is invalid: {error}\n", self.program);
        Verdict { stdout: String::new(), stderr, valid: false }
    }

    /// The plugins cannot be looked at; the first reason is told.
    pub fn abort(&mut self, error: &dyn fmt::Display) {
        self.aborted.get_or_insert_with(|| error.to_string());
    }

    /// Notes what became of `plugin`.
    ///
    /// Files that its settings name need not be there, since a configuration may be checked
    /// elsewhere than where it will be used.
    pub fn look<T>(&mut self, plugin: &PluginConfig, loaded: Result<T, CatalogError>) {
        let errors = match loaded {
            Ok(_) => return,
            Err(CatalogError::Configure { source: PluginError::Unusable(_), .. }) => return,
            Err(CatalogError::Configure { source: PluginError::Config(errors), .. }) => errors,
            Err(CatalogError::Configure { source, .. }) => ConfigErrors::one(source.to_string()),
            Err(error) => return self.abort(&error),
        };
        self.findings.push((format!("{} {:?}", plugin.kind, plugin.name), errors));
    }

    /// The outcome.
    pub fn verdict(self) -> Verdict {
        let program = self.program;
        let invalid = |stderr| Verdict { stdout: String::new(), stderr, valid: false };
        if let Some(error) = self.aborted {
            return invalid(format!("Could not validate configuration file: {error}"));
        }
        if self.findings.is_empty() {
            let stdout = format!("SPIRE {program} configuration file is valid.\n");
            return Verdict { stdout, stderr: String::new(), valid: true };
        }
        let mut stderr =
            format!("SPIRE {program} configuration file is invalid.\nValidation errors:\n");
        for (plugin, errors) in self.findings {
            let _ = writeln!(stderr, "\t{plugin}:");
            for mistake in errors.0 {
                let _ = writeln!(stderr, "\t\t{mistake}");
            }
        }
        invalid(stderr)
    }
}
