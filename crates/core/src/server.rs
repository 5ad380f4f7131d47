//! The server's side: requests to it, and what is known of it.

pub(crate) mod cookies;
pub(crate) mod credentials;
pub(crate) mod requests;
pub(crate) mod retry;
pub(crate) mod session;
pub(crate) mod transport_choice;
