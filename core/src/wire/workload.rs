//! The SPIFFE Workload API, which has no protobuf package.

use tonic::metadata::MetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

use spiffe_workload_api_client::SpiffeWorkloadApiClient;

pub use super::generated::*;

/// The header that every call carries, with the value `true`, so that no browser or proxy is
/// tricked into making one.
///
/// # Source
/// SPIFFE Workload Endpoint, 6.
pub const SECURITY_HEADER: &str = "workload.spiffe.io";

/// A client whose calls carry the header.
pub type Client = SpiffeWorkloadApiClient<
    InterceptedService<Channel, fn(Request<()>) -> Result<Request<()>, Status>>,
>;

/// A client over `channel`.
pub fn client(channel: Channel) -> Client {
    SpiffeWorkloadApiClient::with_interceptor(channel, |mut request| {
        request.metadata_mut().insert(SECURITY_HEADER, MetadataValue::from_static("true"));
        Ok(request)
    })
}
