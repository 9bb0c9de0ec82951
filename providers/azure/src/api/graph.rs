//! Azure Resource Graph: one question about many resources of many subscriptions.

use std::collections::BTreeSet;

use http::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{Answer, ApiError, MAX_PAGES, ResourceManager};

const PATH: &str = "/providers/Microsoft.ResourceGraph/resources?api-version=2022-10-01";
/// Rows of one page; more are not given.
const ROWS: u32 = 1000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rows<T> {
    /// Azure counts the rows of all pages in every answer.
    total_records: u64,
    data: Vec<T>,
    #[serde(rename = "$skipToken")]
    skip_token: Option<String>,
}

impl ResourceManager {
    /// The rows that `query` finds in `subscriptions`, with all pages. They must be in some order,
    /// or else pages may repeat some and leave out others.
    pub(crate) async fn query<T: DeserializeOwned>(
        &self,
        query: &str,
        subscriptions: &BTreeSet<&str>,
    ) -> Result<Answer<Vec<T>>, ApiError> {
        let (mut rows, mut skip_token) = (Vec::new(), None);
        for _ in 0..MAX_PAGES {
            let mut options = json!({ "resultFormat": "objectArray", "$top": ROWS });
            if let Some(token) = skip_token {
                options["$skipToken"] = token;
            }
            let body = json!({
                "query": query,
                "subscriptions": subscriptions,
                "options": options,
            });
            let page: Answer<Rows<T>> =
                self.ask(Method::POST, self.endpoint.url(PATH), Some(&body)).await?;
            rows.extend(page.value.data);
            let total = page.value.total_records;
            let next = page.value.skip_token.filter(|token| !token.is_empty());
            let Some(token) = next else {
                if (rows.len() as u64) < total {
                    let what = format!("{} of {total} rows, and no more of them", rows.len());
                    return Err(ApiError::odd(what, page.request_id));
                }
                return Ok(Answer { value: rows, request_id: page.request_id });
            };
            skip_token = Some(token.into());
        }
        Err(ApiError::odd("the query finds too much", None))
    }
}

/// `texts` as a list in the query language, in which nothing but the texts can stand.
pub(crate) fn quoted<'t>(texts: impl IntoIterator<Item = &'t str>) -> String {
    let texts = texts.into_iter().map(|text| {
        let text: String = text
            .chars()
            .filter(|letter| !letter.is_control())
            .flat_map(|letter| {
                let escape = matches!(letter, '\'' | '\\').then_some('\\');
                escape.into_iter().chain([letter])
            })
            .collect();
        format!("'{text}'")
    });
    texts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_stays_a_text() {
        assert_eq!(quoted(["a", "b-1"]), "'a', 'b-1'");
        assert_eq!(quoted(["' or 1 == 1 //", "\\'\n"]), r"'\' or 1 == 1 //', '\\\''");
    }
}
