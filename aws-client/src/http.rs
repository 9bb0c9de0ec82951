//! The HTTP client: proxies of the environment, the system's CAs and those of the operator, and
//! answers that cannot fill the memory.

use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use http_body_util::Limited;
use spire_core::remote::Endpoints;

/// Largest answer in bytes: a page of a thousand instances is about a quarter of it.
const MAX_ANSWER_BYTES: usize = 16 << 20;

pub(crate) fn client(endpoints: &Endpoints) -> Result<SharedHttpClient, String> {
    let mut trusted = TrustStore::default();
    for authority in endpoints.authorities() {
        trusted.add_pem_certificate(spire_core::bundle::certificate_pem(authority));
    }
    let context = TlsContext::builder().with_trust_store(trusted).build();
    let context = context.map_err(|error| format!("no HTTP client: {error}"))?;
    let client = Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder();
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
        connector.set_proxy_config(Some(ProxyConfig::from_env()));
        connector
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(context.clone())
            .build()
    });
    Ok(SharedHttpClient::new(Bounded(client)))
}

/// A client, or a connector, whose answers end at [`MAX_ANSWER_BYTES`].
#[derive(Debug)]
struct Bounded<C>(C);

impl HttpClient for Bounded<SharedHttpClient> {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(Bounded(self.0.http_connector(settings, components)))
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.0.connector_metadata()
    }
}

impl HttpConnector for Bounded<SharedHttpConnector> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let answer = self.0.call(request);
        HttpConnectorFuture::new(async move {
            let bound = |body| SdkBody::from_body_1_x(Limited::new(body, MAX_ANSWER_BYTES));
            Ok(answer.await?.map(bound))
        })
    }
}

#[cfg(test)]
mod tests {
    use aws_smithy_runtime_api::http::{Response, StatusCode};
    use http_body_util::BodyExt;

    use super::*;

    /// Answers with so many bytes.
    #[derive(Debug)]
    struct Long(usize);

    impl HttpConnector for Long {
        fn call(&self, _request: HttpRequest) -> HttpConnectorFuture {
            let status = StatusCode::try_from(200).unwrap();
            let answer = Response::new(status, SdkBody::from(vec![b'x'; self.0]));
            HttpConnectorFuture::ready(Ok(answer))
        }
    }

    #[tokio::test]
    async fn an_answer_ends_at_the_bound() {
        for (length, is_read) in [(MAX_ANSWER_BYTES, true), (MAX_ANSWER_BYTES + 1, false)] {
            let connector = Bounded(SharedHttpConnector::new(Long(length)));
            let answer = connector.call(HttpRequest::empty()).await.unwrap();
            assert_eq!(answer.into_body().collect().await.is_ok(), is_read, "{length}");
        }
    }
}
