//! For whom a message is sent, and how. This is decided once, when the message is made.

use std::sync::Arc;

use tokio::sync::Notify;

use super::{parked_calls::OpenCall, permits::PermitKind};

/// The decisions about a message.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a decision of its own")]
pub(crate) struct Purpose {
    /// The bridge made the message: the response goes to a caller in the bridge, and the client does not know the
    /// message.
    pub(crate) is_own: bool,
    /// It waits while a session is set up, and is sent again in the next one if its own is lost.
    pub(crate) waits_for_session: bool,
    /// It is sent as a modern message, even if it does not say so.
    pub(crate) is_modern: bool,
    /// It is tried again if the server cannot be reached.
    pub(crate) is_retried: bool,
    /// It waits for a server that cannot be reached, as long as the settings allow.
    pub(crate) is_held: bool,
    /// The limit that it counts against.
    pub(crate) permit: PermitKind,
    /// Who gets the other messages in its reply.
    pub(crate) side_messages: SideMessageRecipient,
}

/// Who gets the notifications and requests in the reply to a request.
#[derive(Clone, Debug)]
pub(crate) enum SideMessageRecipient {
    /// The client, unchanged.
    Client,
    /// The calls and subscriptions that want them, if the session is for modern clients; otherwise the client.
    Session,
    /// No one: they are dropped.
    Nobody,
    /// A legacy client that subscribed at a modern server. Notified when the server has acknowledged the subscription.
    Subscription(Arc<Notify>),
    /// A modern client, as part of this call to a legacy server.
    Call(Arc<OpenCall>),
}

impl Purpose {
    /// A client message.
    pub(crate) fn client() -> Self {
        Self { is_own: false, ..Self::own(SideMessageRecipient::Client) }
    }

    /// A message that sets up a session or belongs to one, and is lost with it.
    pub(crate) fn session() -> Self {
        Self { waits_for_session: false, is_held: false, ..Self::own(SideMessageRecipient::Session) }
    }

    /// A message that tells a legacy server what modern clients want, in the session that there is.
    pub(crate) fn modern_clients() -> Self {
        Self::own(SideMessageRecipient::Session)
    }

    /// A message that stands for a legacy client's message at a modern server.
    pub(crate) fn legacy_client() -> Self {
        Self { is_modern: true, ..Self::own(SideMessageRecipient::Client) }
    }

    /// One round of a legacy client's request at a modern server. It takes that request's permit.
    pub(crate) fn round(permit: PermitKind) -> Self {
        Self { permit, ..Self::legacy_client() }
    }

    /// The subscription of a legacy client at a modern server.
    pub(crate) fn subscription(acknowledged: Arc<Notify>) -> Self {
        Self { is_modern: true, ..Self::own(SideMessageRecipient::Subscription(acknowledged)) }
    }

    /// A `tools/list` that finds out which headers the tools of a modern server want. The call that needs it is
    /// retried instead.
    pub(crate) fn tool_list() -> Self {
        Self { is_retried: false, is_held: false, ..Self::own(SideMessageRecipient::Nobody) }
    }

    /// A request for a list that the client may already have. Only the bridge needs the answer.
    pub(crate) fn recheck() -> Self {
        Self { is_held: false, ..Self::own(SideMessageRecipient::Nobody) }
    }

    /// A message that stands for a modern client's request at a legacy server.
    pub(crate) fn modern_call(call: Arc<OpenCall>) -> Self {
        Self::own(SideMessageRecipient::Call(call))
    }

    fn own(side_messages: SideMessageRecipient) -> Self {
        Self {
            is_own: true,
            waits_for_session: true,
            is_modern: false,
            is_retried: true,
            is_held: true,
            permit: PermitKind::Nobody,
            side_messages,
        }
    }
}
