//! The accounts of an organization, as AWS Organizations lists them or as a file does.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::{Cloud, CloudError};
use crate::config::ManagementAccount;
use crate::members::List;

/// Most pages of accounts, each of up to 20.
const MAX_PAGES: usize = 5000;
/// Largest file of accounts in bytes.
const MAX_FILE_BYTES: u64 = 8 << 20;

/// The accounts that a management account lists.
pub(crate) struct Organization {
    pub(crate) cloud: Cloud,
    pub(crate) management: ManagementAccount,
}

#[async_trait]
impl List for Organization {
    async fn read(&self) -> Result<HashSet<String>, CloudError> {
        let ManagementAccount { account_id, role, region } = &self.management;
        let client = self.cloud.organizations(account_id, role, region).await;
        let mut accounts = HashSet::new();
        let mut next = None;
        for _ in 0..MAX_PAGES {
            let page = client.list_accounts().set_next_token(next.take()).send().await;
            let page = page.map_err(|error| CloudError::of("ListAccounts", &error))?;
            let active = page.accounts().iter().filter(|account| is_active(account));
            accounts.extend(active.filter_map(|account| account.id().map(ToOwned::to_owned)));
            next = page.next_token().filter(|token| !token.is_empty()).map(ToOwned::to_owned);
            if next.is_none() {
                return Ok(accounts);
            }
        }
        Err(CloudError::new(format!("ListAccounts gave more than {MAX_PAGES} pages")))
    }
}

fn is_active(account: &aws_sdk_organizations::types::Account) -> bool {
    account.status() == Some(&aws_sdk_organizations::types::AccountStatus::Active)
}

/// The accounts that a file lists.
pub(crate) struct AccountFile(pub(crate) PathBuf);

#[async_trait]
impl List for AccountFile {
    async fn read(&self) -> Result<HashSet<String>, CloudError> {
        let path = self.0.clone();
        let read = tokio::task::spawn_blocking(move || read_accounts(&path)).await;
        let read = read.unwrap_or_else(|error| Err(error.to_string()));
        read.map_err(CloudError::new)
    }
}

/// Reads a JSON array of account IDs.
///
/// # Errors
/// A sentence that names the file.
pub(crate) fn read_accounts(path: &Path) -> Result<HashSet<String>, String> {
    let unable = |why: &dyn std::fmt::Display| {
        format!("unable to read account_list_file {}: {why}", path.display())
    };
    let size = std::fs::metadata(path).map_err(|error| unable(&error))?.len();
    if size > MAX_FILE_BYTES {
        return Err(unable(&format_args!("it has more than {MAX_FILE_BYTES} bytes")));
    }
    let text = std::fs::read(path).map_err(|error| unable(&error))?;
    let accounts: HashSet<String> =
        serde_json::from_slice(&text).map_err(|error| unable(&error))?;
    match accounts.iter().find(|account| !crate::config::is_account(account)) {
        Some(account) => Err(unable(&format_args!("{account:?} is not an ID of 12 digits"))),
        None => Ok(accounts),
    }
}
