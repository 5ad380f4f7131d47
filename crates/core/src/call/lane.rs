//! How a message is ordered among the others, and with whom it shares what may be at the server at once.

use crate::{
    call::permits::PermitKind,
    gate::{Gate, Hold},
    server::delivery::Delivery,
};
use std::sync::Arc;

/// How a message is ordered among the others.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    /// What must have happened before it may be sent.
    pub(crate) gate: Option<Gate>,
    /// Keeps later messages waiting, until it is dropped.
    pub(crate) hold: Option<Hold>,
    /// With whom it shares what may be at the server at once.
    pub(crate) share: PermitKind,
    /// It goes out only after the request it is about, and not at all if that one never does.
    pub(crate) follows: Option<Arc<Delivery>>,
}
