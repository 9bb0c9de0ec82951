//! `plugins { … }`: which plugin plays which part in an agent.

use spire_core::config::{ConfigErrors, Mistake, PluginConfig};

/// The types of plugins that an agent knows.
const KINDS: [&str; 4] = ["KeyManager", "NodeAttestor", "WorkloadAttestor", "SVIDStore"];

/// The plugins of an agent by their part, each as often as it may be there.
#[derive(Debug, Clone)]
pub struct AgentPlugins {
    /// The one that keeps the agent's keys.
    pub key_manager: PluginConfig,
    /// The one that proves the node. With a join token, `join_token` is used in its stead.
    pub node_attestor: PluginConfig,
    /// Those that tell processes apart; at least one.
    pub workload_attestors: Vec<PluginConfig>,
    /// Those that carry SVIDs elsewhere.
    pub svid_stores: Vec<PluginConfig>,
}

impl AgentPlugins {
    /// Gives each plugin its part.
    ///
    /// # Errors
    /// [`ConfigErrors`]: what is missing, what is there too often, and what no agent knows.
    pub fn assign(plugins: &[PluginConfig]) -> Result<Self, ConfigErrors> {
        let mut mistakes = Vec::new();
        let of_kind = |kind: &str| -> Vec<PluginConfig> {
            let enabled = plugins.iter().filter(|plugin| plugin.enabled && plugin.kind == kind);
            enabled.cloned().collect()
        };
        for plugin in plugins.iter().filter(|plugin| !KINDS.contains(&plugin.kind.as_str())) {
            let path = format!("plugins.{}[{:?}]", plugin.kind, plugin.name);
            let sentence = format!("unsupported plugin type {:?}", plugin.kind);
            mistakes.push(Mistake::new(sentence).path(path));
        }
        let mut exactly_one = |kind: &str| {
            let mut found = of_kind(kind);
            if found.len() != 1 {
                mistakes.push(miscounted(kind, "exactly 1", found.len()));
            }
            found.pop()
        };
        let key_manager = exactly_one("KeyManager");
        let node_attestor = exactly_one("NodeAttestor");
        let workload_attestors = of_kind("WorkloadAttestor");
        if workload_attestors.is_empty() {
            mistakes.push(miscounted("WorkloadAttestor", "at least 1", 0));
        }
        let svid_stores = of_kind("SVIDStore");
        match (key_manager, node_attestor) {
            (Some(key_manager), Some(node_attestor)) if mistakes.is_empty() => {
                Ok(Self { key_manager, node_attestor, workload_attestors, svid_stores })
            }
            _ => Err(ConfigErrors(mistakes)),
        }
    }
}

fn miscounted(kind: &str, expected: &str, count: usize) -> Mistake {
    let sentence = format!(
        "plugin type {kind:?} constraint not satisfied: expected {expected} but got {count}"
    );
    Mistake::new(sentence).path("plugins")
}
