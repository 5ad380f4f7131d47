//! What people have met: servers and gateways that answer in their own way, each as a dialogue that is named by what it is. Where
//! something works without a bridge, it works through it.

/// What reaches the client, and what does not.
mod answers;
