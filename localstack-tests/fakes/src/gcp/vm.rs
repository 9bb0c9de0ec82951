//! An instance.

use serde_json::{Value, json};

/// For whom agents ask their tokens to be.
pub const AUDIENCE: &str = "spire-gcp-node-attestor";

/// An instance, as its token and the Compute API describe it.
#[derive(Debug, Clone)]
pub struct Vm {
    /// ID of its project.
    pub project_id: String,
    /// Number of its project.
    pub project_number: u64,
    /// Its zone.
    pub zone: String,
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// When it was created, in seconds since 1970.
    pub created_at: u64,
    /// Its service account; `None` where none is attached.
    pub service_account: Option<String>,
    /// Such as `RUNNING`.
    pub status: String,
    /// Its network tags.
    pub tags: Vec<String>,
    /// Its labels.
    pub labels: Vec<(String, String)>,
    /// Items of its metadata; one may have no value.
    pub metadata: Vec<(String, Option<String>)>,
}

impl Vm {
    /// A running instance of project `big-kahuna-123456`; others differ in name and number.
    pub fn new(name: &str, id: u64) -> Self {
        Self {
            project_id: "big-kahuna-123456".to_owned(),
            project_number: 123_456_789_012,
            zone: "us-west1-b".to_owned(),
            id,
            name: name.to_owned(),
            created_at: super::now() - 600,
            service_account: Some("123456789-compute@developer.gserviceaccount.com".to_owned()),
            status: "RUNNING".to_owned(),
            tags: Vec::new(),
            labels: Vec::new(),
            metadata: Vec::new(),
        }
    }

    /// What its identity token claims in its full format.
    pub fn claims(&self, audience: &str, issued_at: u64) -> Value {
        json!({
            "aud": audience,
            "azp": "112233445566778899000",
            "email": self.service_account,
            "email_verified": true,
            "exp": issued_at + 3600,
            "google": { "compute_engine": {
                "instance_creation_timestamp": self.created_at,
                "instance_id": self.id.to_string(),
                "instance_name": self.name,
                "project_id": self.project_id,
                "project_number": self.project_number,
                "zone": self.zone,
            } },
            "iat": issued_at,
            "iss": "https://accounts.google.com",
            "sub": "112233445566778899000",
        })
    }

    /// Its path at the Compute API.
    pub fn path(&self) -> String {
        let Self { project_id, zone, name, .. } = self;
        format!("/compute/v1/projects/{project_id}/zones/{zone}/instances/{name}")
    }

    /// What the Compute API says of it.
    pub fn description(&self) -> Value {
        let items: Vec<Value> = self
            .metadata
            .iter()
            .map(|(key, value)| match value {
                Some(value) => json!({ "key": key, "value": value }),
                None => json!({ "key": key }),
            })
            .collect();
        let labels: serde_json::Map<String, Value> =
            self.labels.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        let mut described = json!({
            "kind": "compute#instance",
            "id": self.id.to_string(),
            "name": self.name,
            "status": self.status,
            "zone": format!("projects/{}/zones/{}", self.project_id, self.zone),
            "machineType": "e2-small",
            "serviceAccounts": [{ "email": self.service_account }],
            "metadata": { "kind": "compute#metadata", "fingerprint": "abc=", "items": items },
            "tags": { "fingerprint": "abc=", "items": self.tags },
        });
        // The API leaves out what is empty.
        if !labels.is_empty() {
            described["labels"] = Value::Object(labels);
        }
        for name in ["tags", "metadata"] {
            if described[name]["items"] == json!([]) {
                described[name].as_object_mut().map(|members| members.remove("items"));
            }
        }
        described
    }
}
