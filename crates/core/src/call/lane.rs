//! The order of a message among the others, and the limit on messages in flight that it counts against.

use crate::{
    call::permits::PermitKind,
    gate::{Gate, GateGuard},
    server::delivery::Delivery,
};
use std::sync::Arc;

/// The order and the limit of a message.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    /// Must be open before the message is sent.
    pub(crate) gate: Option<Gate>,
    /// Keeps later messages waiting until it is dropped.
    pub(crate) hold: Option<GateGuard>,
    /// The limit that the message counts against.
    pub(crate) share: PermitKind,
    /// The request that the message is about. The message is sent after it, or not at all if the request never is.
    pub(crate) follows: Option<Arc<Delivery>>,
}
