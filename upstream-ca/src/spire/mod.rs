//! `spire`: the server of a SPIRE above signs the intermediate, publishes our keys for JWT-SVIDs,
//! and says what the whole trust domain trusts.
//!
//! This server is a workload there: an agent of the SPIRE above, on this machine, attests it and
//! gives it an SVID, whose entry must have `downstream` set.

mod identity;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use rustls::ClientConfig;
use spire_core::bundle::{Bundle, JwtAuthority, X509Authority};
use spire_core::catalog::{Host, Plugin, PluginError};
use spire_core::config::{FromSection, Reader, Section};
use spire_core::grpc::{ServerAddress, connect, describe};
use spire_core::id::TrustDomain;
use spire_core::tls::{ServerTrust, client_config};
use spire_core::upstream::{Minted, UpstreamAuthority, UpstreamBundle, UpstreamError};
use spire_core::wire::bundle::bundle_client::BundleClient;
use spire_core::wire::bundle::{GetBundleRequest, PublishJwtAuthorityRequest};
use spire_core::wire::convert;
use spire_core::wire::svid::NewDownstreamX509caRequest;
use spire_core::wire::svid::svid_client::SvidClient;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use crate::request;
use identity::Identities;

/// Registers the plugin.
pub const PLUGIN: Plugin<dyn UpstreamAuthority> =
    Plugin { name: "spire", build: |section, host| Ok(Arc::new(Spire::build(section, host)?)) };

/// How often the bundle above is asked for.
const LOOK: Duration = Duration::from_secs(5);

/// How long one call may take, to connect for it included.
const CALL: Duration = Duration::from_secs(15);

/// The section as checked.
struct Config {
    server: ServerAddress,
    workload_api_socket: PathBuf,
}

impl FromSection for Config {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        reader.ignored("ttl", "the server above decides");
        reader.ignored("upstream_bundle", "the roots above are always in the bundle");
        let host = reader.required("server_address", "server_address is required");
        let port = match reader.has("server_port") {
            true => reader.integer("server_port"),
            false => {
                reader.reject_section("server_port is required", "add server_port");
                None
            }
        };
        let sentence = "workload_api_socket is required";
        let socket = reader.required("workload_api_socket", sentence);
        reader.block_or_empty("experimental", |reader| {
            if reader.string("workload_api_named_pipe_name").is_some() {
                let sentence = "workload_api_named_pipe_name is not supported in this platform";
                let remedy = "use workload_api_socket instead";
                reader.reject("workload_api_named_pipe_name", sentence, remedy);
            }
            if reader.flag("require_pq_kem") {
                let remedy = "leave it out: a hybrid exchange is offered first anyway";
                reader.reject("require_pq_kem", "require_pq_kem is not supported", remedy);
            }
            Some(())
        });
        let host = host?;
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let host = bare.unwrap_or(&host).to_owned();
        let socket = socket?;
        let socket = socket.strip_prefix("unix:").unwrap_or(&socket);
        Some(Self {
            server: ServerAddress { host, port: port? },
            workload_api_socket: PathBuf::from(socket),
        })
    }
}

/// The SPIRE above.
pub struct Spire {
    trust_domain: TrustDomain,
    identities: Identities,
    server: ServerAddress,
    tls: Arc<ClientConfig>,
    channel: ArcSwap<Channel>,
}

impl Spire {
    fn build(section: &Section, host: &Host) -> Result<Self, PluginError> {
        let Config { server, workload_api_socket } = section.decode()?;
        let identities = Identities::new(workload_api_socket, host)?;
        let tls = Arc::new(client_config(
            &host.trust_domain,
            ServerTrust::Bundle(identities.trusted()),
            Some(identities.presented()),
            host.clock.clone(),
        ));
        let channel = ArcSwap::from_pointee(connect(&server, tls.clone()));
        Ok(Self { trust_domain: host.trust_domain.clone(), identities, server, tls, channel })
    }

    /// Calls the server above. Where it refuses, or does not answer, the SVID or the bundle of this
    /// server may be those of yesterday: both are asked for again, and it is called once more.
    async fn call<T, F>(&self, call: impl Fn(Channel) -> F) -> Result<T, UpstreamError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        if self.identities.refresh_if_due().await? {
            self.reconnect();
        }
        let mut answer = self.try_call(&call).await;
        if answer.as_ref().is_err_and(may_be_out_of_date) && self.identities.refresh().await? {
            self.reconnect();
            answer = self.try_call(&call).await;
        }
        answer.map_err(|status| self.refusal(&status))
    }

    async fn try_call<T, F>(&self, call: impl Fn(Channel) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let channel = Channel::clone(&self.channel.load());
        match timeout(CALL, call(channel)).await {
            Ok(answer) => answer.map(Response::into_inner),
            Err(_) => {
                // The connection may be dead without anyone having said so.
                self.reconnect();
                Err(Status::deadline_exceeded(format!("no answer within {} s", CALL.as_secs())))
            }
        }
    }

    /// The next call dials anew, and presents the SVID of then.
    fn reconnect(&self) {
        self.channel.store(Arc::new(connect(&self.server, self.tls.clone())));
    }

    fn refusal(&self, status: &Status) -> UpstreamError {
        let server = &self.server;
        let said = describe(status);
        UpstreamError::Unavailable(match status.code() {
            Code::PermissionDenied => format!(
                "the upstream server {server} refuses: {said}; the entry of this server there must \
                 have downstream set"
            ),
            _ => format!("the upstream server {server}: {said}"),
        })
    }

    /// The bundle of the trust domain as the server above has it.
    async fn above(&self) -> Result<Bundle, UpstreamError> {
        let ask = |channel| async {
            BundleClient::new(channel).get_bundle(GetBundleRequest::default()).await
        };
        let bundle = convert::bundle::bundle(&self.call(ask).await?)
            .map_err(|error| unusable(format!("its bundle: {error}")))?;
        let (theirs, ours) = (&bundle.trust_domain, &self.trust_domain);
        if theirs != ours {
            return Err(unusable(format!(
                "it serves trust domain {theirs}, and this server {ours}"
            )));
        }
        if bundle.x509_authorities.is_empty() {
            return Err(unusable("its bundle has no roots".to_owned()));
        }
        self.identities.trust(&bundle.x509_authorities);
        Ok(bundle)
    }
}

#[async_trait]
impl UpstreamAuthority for Spire {
    async fn mint(&self, csr: &[u8], ttl: Duration) -> Result<Minted, UpstreamError> {
        request::read(csr, &self.trust_domain)?;
        let request = NewDownstreamX509caRequest {
            csr: Bytes::copy_from_slice(csr),
            preferred_ttl: i32::try_from(ttl.as_secs()).unwrap_or(i32::MAX),
        };
        let ask = |channel| {
            let request = request.clone();
            async { SvidClient::new(channel).new_downstream_x509ca(request).await }
        };
        let chain = self.call(ask).await?.ca_cert_chain;
        // The certificates are copied: slices of the answer would keep all of it in memory.
        let chain = chain.iter().map(|der| Bytes::copy_from_slice(der)).collect();
        // Asked afterwards, so that it has the root that signed just now.
        let roots: Vec<X509Authority> = self.above().await?.x509_authorities;
        Ok(Minted { chain, roots })
    }

    async fn publish_jwt_key(
        &self,
        key: &JwtAuthority,
    ) -> Result<Vec<JwtAuthority>, UpstreamError> {
        let request = PublishJwtAuthorityRequest { jwt_authority: Some(key.into()) };
        let ask = |channel| {
            let request = request.clone();
            async { BundleClient::new(channel).publish_jwt_authority(request).await }
        };
        let answer = self.call(ask).await?;
        convert::bundle::jwt_authorities(&answer.jwt_authorities)
            .map_err(|error| unusable(format!("its keys: {error}")))
    }

    async fn bundle(&self) -> Result<UpstreamBundle, UpstreamError> {
        let bundle = self.above().await?;
        Ok(UpstreamBundle {
            roots: bundle.x509_authorities,
            jwt_keys: Some(bundle.jwt_authorities),
            sequence_number: bundle.sequence_number,
        })
    }

    fn bundle_period(&self) -> Duration {
        LOOK
    }
}

/// Whether another SVID, or another bundle to check the server by, may help.
fn may_be_out_of_date(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Unauthenticated | Code::PermissionDenied
    )
}

/// What it says is of no use now. That cost nothing, and it may be asked again soon.
fn unusable(why: String) -> UpstreamError {
    UpstreamError::Unavailable(format!("the upstream server: {why}"))
}
