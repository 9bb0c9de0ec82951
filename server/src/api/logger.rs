//! The logger service: how much is logged, changed while the server runs.

use spire_core::telemetry::log::Logger as Log;
use spire_core::wire::logger::logger_server::Logger;
use spire_core::wire::logger::{GetLoggerRequest, ResetLogLevelRequest, SetLogLevelRequest};
use spire_core::wire::types;
use tonic::{Request, Response, Status};

use super::call::Call;

/// The logger service.
#[derive(Debug, Clone)]
pub struct LoggerService {
    /// The log of this process.
    pub log: Log,
}

type Reply = Result<Response<types::Logger>, Status>;

#[tonic::async_trait]
impl Logger for LoggerService {
    async fn get_logger(&self, _: Request<GetLoggerRequest>) -> Reply {
        Ok(self.state())
    }

    async fn set_log_level(&self, request: Request<SetLogLevelRequest>) -> Reply {
        let call = Call::of(&request)?;
        let wanted = request.into_inner().new_level;
        let wanted = types::LogLevel::try_from(wanted).unwrap_or_default();
        call.note(|fields| fields.add("new_level", wanted.as_str_name()));
        self.log.set_level(wanted.try_into()?);
        Ok(self.state())
    }

    async fn reset_log_level(&self, _: Request<ResetLogLevelRequest>) -> Reply {
        self.log.reset_level();
        Ok(self.state())
    }
}

impl LoggerService {
    fn state(&self) -> Response<types::Logger> {
        Response::new((&self.log).into())
    }
}
