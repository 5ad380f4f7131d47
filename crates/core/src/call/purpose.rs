//! On whose behalf a message is sent: what follows from that is decided once, when the message is made.

use std::sync::Arc;

use tokio::sync::Notify;

use super::{parked_calls::OpenCall, permits::PermitKind};

/// What was decided about a message.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a decision of its own")]
pub(crate) struct Purpose {
    /// The bridge has made it: its answer goes to a caller in the bridge, and the client knows nothing of it.
    pub(crate) is_own: bool,
    /// It waits while a session is set up, and goes into the next one if its own is lost.
    pub(crate) waits_for_session: bool,
    /// It is sent as a modern message, whatever it says itself.
    pub(crate) is_modern: bool,
    /// It is tried again if the server cannot be reached.
    pub(crate) is_retried: bool,
    /// What it takes of what may be at the server at once.
    pub(crate) permit: PermitKind,
    /// Who gets what else comes in its reply.
    pub(crate) beside: Beside,
}

/// Who gets the notifications and requests that come in the reply to a request.
#[derive(Clone, Debug)]
pub(crate) enum Beside {
    /// The client, as they are.
    Client,
    /// Those whom they are for, if the session is one for modern clients; otherwise the client.
    Session,
    /// Nobody.
    Nobody,
    /// A legacy client that listens to a modern server. Told when the server has acknowledged the subscription.
    Subscription(Arc<Notify>),
    /// A modern client, as part of this call to a legacy server.
    Call(Arc<OpenCall>),
}

impl Purpose {
    /// The client's own.
    pub(crate) fn client() -> Self {
        Self { is_own: false, ..Self::own(Beside::Client) }
    }

    /// It sets up a session or belongs to one, and is lost with it.
    pub(crate) fn session() -> Self {
        Self { waits_for_session: false, ..Self::own(Beside::Session) }
    }

    /// It tells a legacy server what modern clients want, in whatever session there is.
    pub(crate) fn modern_clients() -> Self {
        Self::own(Beside::Session)
    }

    /// It stands for a legacy client's message at a modern server.
    pub(crate) fn legacy_client() -> Self {
        Self { is_modern: true, ..Self::own(Beside::Client) }
    }

    /// It is one round of a legacy client's request at a modern server, and takes that request's permit.
    pub(crate) fn round(permit: PermitKind) -> Self {
        Self { permit, ..Self::legacy_client() }
    }

    /// It is the subscription of a legacy client at a modern server.
    pub(crate) fn subscription(acknowledged: Arc<Notify>) -> Self {
        Self { is_modern: true, ..Self::own(Beside::Subscription(acknowledged)) }
    }

    /// It finds out what the tools of a modern server want. The call that needs that is tried again in its place.
    pub(crate) fn tool_list() -> Self {
        Self { is_retried: false, ..Self::own(Beside::Nobody) }
    }

    /// It stands for a modern client's request at a legacy server.
    pub(crate) fn modern_call(call: Arc<OpenCall>) -> Self {
        Self::own(Beside::Call(call))
    }

    fn own(beside: Beside) -> Self {
        Self {
            is_own: true,
            waits_for_session: true,
            is_modern: false,
            is_retried: true,
            permit: PermitKind::Nobody,
            beside,
        }
    }
}
