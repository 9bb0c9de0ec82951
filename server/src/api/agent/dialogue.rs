//! The stream of an attestation: first the request, then challenges and their answers.

use std::net::IpAddr;

use async_trait::async_trait;
use bytes::Bytes;
use spire_core::grpc::restate;
use spire_core::limits::{MAX_EVIDENCE_BYTES, REMOTE_CALL};
use spire_core::node::AttestError;
use spire_core::wire::agent::AttestAgentRequest;
use spire_core::wire::agent::attest_agent_request::{Params, Step};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::{MALFORMED_CSR, certificate_request};
use crate::attestation::{Dialogue, Origin, Request};

/// Longest name of an attestor in bytes.
const MAX_KIND_BYTES: usize = 255;

/// Both directions of one attestation.
pub(super) struct Messages {
    received: Streaming<AttestAgentRequest>,
    challenges: mpsc::Sender<Bytes>,
    origin: Origin,
}

impl Messages {
    pub(super) fn new(
        received: Streaming<AttestAgentRequest>,
        challenges: mpsc::Sender<Bytes>,
        origin: Origin,
    ) -> Self {
        Self { received, challenges, origin }
    }

    /// The first message, checked.
    pub(super) async fn request(&mut self) -> Result<Request, Status> {
        match self.next().await? {
            Step::Params(params) => request(params, self.origin),
            Step::ChallengeResponse(_) => Err(malformed("missing params")),
        }
    }

    /// The next message, which must come in time.
    async fn next(&mut self) -> Result<Step, Status> {
        let message = tokio::time::timeout(REMOTE_CALL, self.received.message()).await;
        let message = message.map_err(|_| {
            let seconds = REMOTE_CALL.as_secs();
            Status::deadline_exceeded(format!("the agent sent nothing for {seconds} s"))
        })?;
        let message = message.map_err(restate)?;
        let message = message.ok_or_else(|| {
            Status::invalid_argument("the agent ended the stream before its turn")
        })?;
        message.step.ok_or_else(|| malformed("missing params"))
    }
}

#[async_trait]
impl Dialogue for Messages {
    async fn challenge(&mut self, challenge: Vec<u8>) -> Result<Vec<u8>, AttestError> {
        let gone = || AttestError::Malformed("the agent has left".to_owned());
        self.challenges.send(challenge.into()).await.map_err(|_| gone())?;
        let step = self.next().await;
        match step.map_err(|status| AttestError::Malformed(status.message().to_owned()))? {
            Step::ChallengeResponse(answer) if answer.len() > MAX_EVIDENCE_BYTES => {
                Err(AttestError::Malformed(too_large("challenge response")))
            }
            Step::ChallengeResponse(answer) => Ok(answer.into()),
            Step::Params(_) => Err(AttestError::Malformed("missing challenge response".to_owned())),
        }
    }

    fn address(&self) -> Option<IpAddr> {
        self.origin.caller.map(|caller| caller.ip())
    }
}

fn request(params: Params, origin: Origin) -> Result<Request, Status> {
    let data = params.data.ok_or_else(|| malformed("missing attestation data"))?;
    let params = params.params.ok_or_else(|| malformed("missing X509-SVID parameters"))?;
    if data.r#type.is_empty() {
        return Err(malformed("missing attestation data type"));
    }
    if data.r#type.len() > MAX_KIND_BYTES {
        return Err(malformed("attestation data type is too long"));
    }
    if data.payload.is_empty() {
        return Err(malformed("missing attestation data payload"));
    }
    if data.payload.len() > MAX_EVIDENCE_BYTES {
        return Err(malformed(&too_large("attestation data payload")));
    }
    if params.csr.is_empty() {
        return Err(malformed("missing CSR"));
    }
    let csr = certificate_request(MALFORMED_CSR, &params.csr)?;
    Ok(Request { kind: data.r#type, evidence: data.payload, csr, origin })
}

fn malformed(what: &str) -> Status {
    Status::invalid_argument(format!("malformed param: {what}"))
}

fn too_large(what: &str) -> String {
    format!("{what} has more than {MAX_EVIDENCE_BYTES} bytes")
}

#[cfg(test)]
mod tests {
    use spire_core::wire::agent::AgentX509svidParams;
    use spire_core::wire::types::AttestationData;

    use super::*;

    fn params() -> Params {
        let data = AttestationData { r#type: "join_token".into(), payload: "token".into() };
        let params = AgentX509svidParams { csr: "no request".into() };
        Params { data: Some(data), params: Some(params) }
    }

    fn refusal(change: impl Fn(&mut AttestationData, &mut AgentX509svidParams)) -> String {
        let Params { data: Some(mut data), params: Some(mut svid) } = params() else { panic!() };
        change(&mut data, &mut svid);
        let refused = request(Params { data: Some(data), params: Some(svid) }, Origin::default());
        let status = refused.err().unwrap();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        status.message().to_owned()
    }

    #[test]
    fn each_missing_piece_is_named_in_the_words_of_spire() {
        let without_data = Params { data: None, ..params() };
        let missing =
            |params| request(params, Origin::default()).err().unwrap().message().to_owned();
        assert_eq!(missing(without_data), "malformed param: missing attestation data");
        let without_params = Params { params: None, ..params() };
        assert_eq!(missing(without_params), "malformed param: missing X509-SVID parameters");
        assert_eq!(
            refusal(|data, _| data.r#type.clear()),
            "malformed param: missing attestation data type"
        );
        assert_eq!(
            refusal(|data, _| data.payload.clear()),
            "malformed param: missing attestation data payload"
        );
        assert_eq!(refusal(|_, svid| svid.csr.clear()), "malformed param: missing CSR");
        assert!(refusal(|_, _| {}).starts_with("failed to parse CSR: "));
    }

    #[test]
    fn what_is_too_large_is_refused_unread() {
        let large = || vec![0; MAX_EVIDENCE_BYTES + 1].into();
        assert_eq!(
            refusal(|data, _| data.payload = large()),
            "malformed param: attestation data payload has more than 262144 bytes"
        );
        assert_eq!(
            refusal(|_, svid| svid.csr = large()),
            "failed to parse CSR: CSR is larger than 65536 bytes"
        );
    }
}
