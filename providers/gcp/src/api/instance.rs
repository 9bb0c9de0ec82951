//! An instance as the API describes it, and where it is.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::LookupError;
use crate::config::LookupConfig;
use crate::token::Instance;

/// An instance by its place and its number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) zone: Zone,
    name: String,
    pub(super) id: String,
}

/// A zone of a project.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Zone {
    pub(super) project: String,
    name: String,
}

/// What the API says of an instance, as far as it is used.
#[derive(Debug)]
pub(crate) struct Described {
    /// Its number.
    pub(crate) id: String,
    /// Such as `RUNNING`.
    pub(crate) status: String,
    pub(crate) tags: Vec<String>,
    /// Those labels that are asked for.
    pub(crate) labels: Vec<(String, String)>,
    /// Those items of its metadata that are asked for.
    pub(crate) metadata: Vec<(String, String)>,
    /// What Google calls the request.
    pub(crate) request_id: Option<String>,
}

/// An instance as the API writes it.
#[derive(Deserialize)]
pub(super) struct Written {
    id: String,
    status: String,
    #[serde(default)]
    tags: Items<String>,
    #[serde(default)]
    labels: BTreeMap<String, Option<String>>,
    #[serde(default)]
    metadata: Items<Item>,
}

/// A page of instances as the API writes it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Page {
    #[serde(default)]
    pub(super) items: Vec<Written>,
    pub(super) next_page_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(bound = "T: Deserialize<'de>")]
struct Items<T> {
    #[serde(default = "Vec::new")]
    items: Vec<T>,
}

impl<T> Default for Items<T> {
    fn default() -> Self {
        Self { items: Vec::new() }
    }
}

#[derive(Deserialize)]
struct Item {
    key: String,
    value: Option<String>,
}

impl Place {
    /// The names are Google's and become parts of a path: nothing is taken that would lead
    /// elsewhere.
    pub(super) fn of(instance: &Instance) -> Result<Self, LookupError> {
        let Instance { project_id: project, zone, name, id, .. } = instance;
        let fits = |text: &str, more: &str| {
            let fits = |byte: char| byte.is_ascii_alphanumeric() || more.contains(byte);
            text.len() <= 255 && !text.starts_with('.') && text.chars().all(fits)
        };
        if !fits(project, "-:.") || !fits(zone, "-") || !fits(name, "-") {
            return Err(LookupError::Name(instance.to_string()));
        }
        let zone = Zone { project: project.clone(), name: zone.clone() };
        Ok(Self { zone, name: name.clone(), id: id.clone() })
    }

    pub(super) fn path(&self) -> String {
        format!("{}/{}", self.zone.path(), self.name)
    }
}

impl Zone {
    /// The path of all its instances.
    pub(super) fn path(&self) -> String {
        let Self { project, name } = self;
        format!("/compute/v1/projects/{project}/zones/{name}/instances")
    }
}

impl Written {
    /// Of labels and metadata, which may be large, what is asked for.
    pub(super) fn keep(self, config: &LookupConfig, request_id: Option<String>) -> Described {
        let LookupConfig { labels, metadata, .. } = config;
        let labels = self.labels.into_iter().filter(|(key, _)| labels.contains(key));
        let metadata = self.metadata.items.into_iter().filter(|item| metadata.contains(&item.key));
        Described {
            id: self.id,
            status: self.status,
            tags: self.tags.items,
            labels: labels.map(|(key, value)| (key, value.unwrap_or_default())).collect(),
            metadata: metadata.map(|item| (item.key, item.value.unwrap_or_default())).collect(),
            request_id,
        }
    }
}
