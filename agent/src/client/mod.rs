//! The server as this agent sees it: one connection, kept open, over which everything is asked.

mod error;
mod messages;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use spire_core::bundle::Bundle;
use spire_core::entry::EntryId;
use spire_core::id::TrustDomain;
use spire_core::limits::REMOTE_CALL;
use spire_core::svid::x509::X509Svid;
use spire_core::wire;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

pub use spire_core::grpc::{ServerAddress, connect};

pub use error::{Denial, RpcError};
pub use messages::{entry_from_wire, x509_svid_from_wire};

use crate::cache::JwtSvid;

type AgentClient = wire::agent::agent_client::AgentClient<Channel>;
type BundleClient = wire::bundle::bundle_client::BundleClient<Channel>;
type EntryClient = wire::entry::entry_client::EntryClient<Channel>;
type SvidClient = wire::svid::svid_client::SvidClient<Channel>;

/// Largest answer to a call that returns all entries at once: such an answer has no pages.
const MAX_ENTRIES_BYTES: usize = 64 << 20;

/// The server, asked with the agent's own SVID. Each call has a time limit.
pub struct Server {
    channel: ArcSwap<Channel>,
    connect: Box<dyn Fn() -> Channel + Send + Sync>,
}

impl Server {
    /// A server that `connect` makes connections to. Nothing is dialled before the first call.
    pub fn new(connect: impl Fn() -> Channel + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { channel: ArcSwap::from_pointee(connect()), connect: Box::new(connect) })
    }

    /// Gives up the connection: the next call dials anew, and presents the SVID of then. Calls
    /// that are under way keep the old one.
    pub fn reconnect(&self) {
        self.channel.store(Arc::new((self.connect)()));
    }

    fn channel(&self) -> Channel {
        Channel::clone(&self.channel.load())
    }

    /// The client of the entry service.
    pub fn entries(&self) -> EntryClient {
        EntryClient::new(self.channel()).max_decoding_message_size(MAX_ENTRIES_BYTES)
    }

    /// This trust domain's bundle.
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn bundle(&self) -> Result<Bundle, RpcError> {
        let mut client = BundleClient::new(self.channel());
        let answer = self.limited(client.get_bundle(wire::bundle::GetBundleRequest::default()));
        messages::bundle_from_wire(&answer.await?)
    }

    /// The bundle of a trust domain that this one federates with; `None` where the server has
    /// none.
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn federated_bundle(&self, of: &TrustDomain) -> Result<Option<Bundle>, RpcError> {
        let mut client = BundleClient::new(self.channel());
        let request = wire::bundle::GetFederatedBundleRequest {
            trust_domain: of.as_str().to_owned(),
            output_mask: None,
        };
        match self.limited(client.get_federated_bundle(request)).await {
            Ok(bundle) => messages::bundle_from_wire(&bundle).map(Some),
            Err(error) if error.code() == Code::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Signs an X.509-SVID for each of `requests`: the entry and the certificate request. The
    /// answers are in the same order.
    ///
    /// # Errors
    /// [`RpcError`] where the call as a whole failed.
    pub async fn sign_x509_svids(
        &self,
        requests: impl IntoIterator<Item = (EntryId, Bytes)>,
    ) -> Result<Vec<Result<X509Svid, RpcError>>, RpcError> {
        let params = requests
            .into_iter()
            .map(|(id, csr)| wire::svid::NewX509svidParams { entry_id: id.to_string(), csr })
            .collect();
        let mut client = SvidClient::new(self.channel());
        let request = wire::svid::BatchNewX509svidRequest { params };
        let answer = self.limited(client.batch_new_x509svid(request)).await?;
        Ok(answer.results.into_iter().map(messages::signed_from_wire).collect())
    }

    /// Signs a JWT-SVID for an entry.
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn sign_jwt_svid(
        &self,
        entry: &EntryId,
        audience: &[String],
    ) -> Result<JwtSvid, RpcError> {
        let request = wire::svid::NewJwtsvidRequest {
            entry_id: entry.to_string(),
            audience: audience.to_vec(),
        };
        let mut client = SvidClient::new(self.channel());
        let answer = self.limited(client.new_jwtsvid(request)).await?;
        messages::jwt_svid_from_wire(answer.svid)
    }

    /// Signs the agent's next SVID.
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn renew_agent(&self, csr: Bytes) -> Result<X509Svid, RpcError> {
        let request = wire::agent::RenewAgentRequest {
            params: Some(wire::agent::AgentX509svidParams { csr }),
        };
        let mut client = AgentClient::new(self.channel());
        let answer = self.limited(client.renew_agent(request)).await?;
        messages::x509_svid_from_wire(answer.svid)
    }

    /// Tells the server which version this agent has.
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn post_status(&self, version: &str, bundle_serial: u64) -> Result<(), RpcError> {
        let request = wire::agent::PostStatusRequest {
            current_bundle_serial: bundle_serial,
            agent_version: version.to_owned(),
        };
        let mut client = AgentClient::new(self.channel());
        self.limited(client.post_status(request)).await.map(drop)
    }

    async fn limited<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, RpcError> {
        let answer = self.within(REMOTE_CALL, async { call.await.map_err(RpcError::from) }).await?;
        Ok(answer.into_inner())
    }

    /// Runs a call with a time limit. A connection on which one ran out is given up: it may be
    /// dead without anyone having said so.
    ///
    /// # Errors
    /// [`RpcError`] of the call, or `DeadlineExceeded`.
    pub async fn within<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<T, RpcError>>,
    ) -> Result<T, RpcError> {
        match tokio::time::timeout(limit, call).await {
            Ok(answer) => answer,
            Err(_) => {
                self.reconnect();
                Err(RpcError::from(Status::deadline_exceeded("context deadline exceeded")))
            }
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Server")
    }
}
