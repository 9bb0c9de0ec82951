//! One call of a method, as its handler sees it: who calls, why that is allowed, and what the
//! log lines of the call have in common.

use std::sync::{Arc, OnceLock};

use tonic::{Request, Status};
use uuid::Uuid;

use crate::caller::Caller;
use crate::policy::{Class, Rule};

/// A call that the policy has allowed. Handlers find it in the extensions of their request by
/// [`Call::of`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Call(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    caller: Caller,
    rule: &'static Rule,
    allowed_as: Class,
    request_id: OnceLock<Uuid>,
}

impl Call {
    /// A call of `rule`'s method by `caller`, who may do so as one of `allowed_as`.
    pub fn new(caller: Caller, rule: &'static Rule, allowed_as: Class) -> Self {
        Self(Arc::new(Inner { caller, rule, allowed_as, request_id: OnceLock::new() }))
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

    /// The method that is called.
    pub fn rule(&self) -> &'static Rule {
        self.0.rule
    }

    /// The class as one of which the caller may call the method.
    pub fn allowed_as(&self) -> Class {
        self.0.allowed_as
    }

    /// What all log lines of the call share.
    pub fn request_id(&self) -> Uuid {
        *self.0.request_id.get_or_init(Uuid::new_v4)
    }
}
