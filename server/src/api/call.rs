//! One call of a method, as its handler sees it: who calls, why that is allowed, and what the
//! log lines of the call have in common.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use spire_core::id::SpiffeId;
use spire_core::wire::types;
use tonic::{Code, Request, Status};
use uuid::Uuid;

use super::audit::{self, Fields, Outcome};
use crate::caller::Caller;
use crate::policy::{Grant, Rule};

/// A call that the policy has allowed. Handlers find it in the extensions of their request by
/// [`Call::of`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Call(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    caller: Caller,
    rule: &'static Rule,
    grant: Option<Grant>,
    request_id: OnceLock<Uuid>,
    audited: bool,
    fields: Mutex<Fields>,
    has_items: AtomicBool,
}

impl Call {
    /// A call of `rule`'s method by `caller`. `grant` is absent where the call is refused, and
    /// `audited` says whether it leaves lines in the audit log.
    pub fn new(caller: Caller, rule: &'static Rule, grant: Option<Grant>, audited: bool) -> Self {
        Self(Arc::new(Inner {
            caller,
            rule,
            grant,
            request_id: OnceLock::new(),
            audited,
            fields: Mutex::default(),
            has_items: AtomicBool::new(false),
        }))
    }

    /// The call that `request` belongs to.
    ///
    /// # Errors
    /// `INTERNAL` where a service is served without the gate that makes calls of requests.
    pub fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        let call = request.extensions().get::<Self>();
        call.cloned().ok_or_else(|| Status::internal("the request did not pass the policy"))
    }

    /// Who calls.
    pub fn caller(&self) -> &Caller {
        &self.0.caller
    }

    /// The agent, or the server below this one, that calls.
    ///
    /// # Errors
    /// `INTERNAL` where the policy let somebody else pass.
    pub fn own_id(&self) -> Result<SpiffeId, Status> {
        let id = self.caller().id().cloned();
        id.ok_or_else(|| Status::internal("caller ID missing from request context"))
    }

    /// From where the call comes; `None` on the admin socket.
    pub fn ip(&self) -> Option<IpAddr> {
        self.caller().address().map(|address| address.ip())
    }

    /// The method that is called.
    pub fn rule(&self) -> &'static Rule {
        self.0.rule
    }

    /// As what the caller may call the method.
    pub fn grant(&self) -> Option<Grant> {
        self.0.grant
    }

    /// What all log lines of the call share.
    pub fn request_id(&self) -> Uuid {
        *self.0.request_id.get_or_init(Uuid::new_v4)
    }

    /// Adds what the audit log shall say of the operation; costs nothing where there is none.
    pub fn note(&self, add: impl FnOnce(&mut Fields)) {
        if self.0.audited {
            add(&mut self.0.fields.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// One item of a batch is done: its own line in the audit log, and one in the log where it
    /// failed. The call as a whole then has a line only where it failed as a whole.
    pub fn item(&self, status: &types::Status, add: impl FnOnce(&mut Fields)) {
        self.0.has_items.store(true, Ordering::Relaxed);
        let outcome = match Code::from_i32(status.code) {
            Code::Ok => Outcome::Done,
            code => Outcome::Failed(code, &status.message),
        };
        if let Outcome::Failed(code, message) = outcome {
            audit::log_failure(self, code, message);
        }
        if self.0.audited {
            let mut fields = Fields::default();
            add(&mut fields);
            audit::log_access(self, &fields, &outcome);
        }
    }

    /// The call ends with its stream, not when its handler returns: the handler will say how by
    /// [`Call::ended`].
    pub fn ends_with_its_stream(&self) {
        self.0.has_items.store(true, Ordering::Relaxed);
    }

    /// How a call ended that ends with its stream. The handler has logged a failure itself.
    pub fn ended(&self, result: Result<(), &Status>) {
        if self.0.audited {
            let outcome = match result {
                Ok(()) => Outcome::Done,
                Err(status) => Outcome::Failed(status.code(), status.message()),
            };
            let fields = self.0.fields.lock().unwrap_or_else(PoisonError::into_inner);
            audit::log_access(self, &fields, &outcome);
        }
    }

    /// The call is over.
    pub(super) fn end(&self, outcome: &Outcome<'_>) {
        if let Outcome::Failed(code, message) = outcome {
            audit::log_failure(self, *code, message);
        }
        let said = self.0.has_items.load(Ordering::Relaxed) && matches!(outcome, Outcome::Done);
        if self.0.audited && !said {
            let fields = self.0.fields.lock().unwrap_or_else(PoisonError::into_inner);
            audit::log_access(self, &fields, outcome);
        }
    }
}
