//! The subscriptions of modern clients at a legacy server (3.3): which notifications go to which subscription, and
//! which resources the server must watch for all of them together.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{translate::modern_to_legacy::Subscription, wire::message::Message};

/// All open subscriptions.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    state: Mutex<OpenSubscriptions>,
    /// Held while the server is told what to watch, so that it gets one change after the other.
    pub(crate) turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct OpenSubscriptions {
    open: Vec<(u64, Subscription)>,
    next: u64,
    /// How many subscriptions watch each resource.
    watched: HashMap<String, usize>,
}

impl Subscriptions {
    /// Counts one more subscription for these resources. Returns those that were not watched before.
    pub(crate) fn watch(&self, uris: &[String]) -> Vec<String> {
        let mut state = self.lock();
        let mut is_new = |uri: &&String| {
            let count = state.watched.entry((*uri).clone()).or_default();
            *count += 1;
            *count == 1
        };
        uris.iter().filter(|uri| is_new(uri)).cloned().collect()
    }

    /// Counts one subscription less for these resources. Returns those that are no longer watched.
    pub(crate) fn unwatch(&self, uris: &[String]) -> Vec<String> {
        let mut state = self.lock();
        let mut gone = Vec::new();
        for uri in uris {
            if let Some(count) = state.watched.get_mut(uri) {
                *count -= 1;
                if *count == 0 {
                    state.watched.remove(uri);
                    gone.push(uri.clone());
                }
            }
        }
        gone
    }

    /// True if no subscription watches this resource.
    pub(crate) fn is_unwatched(&self, uri: &str) -> bool {
        !self.lock().watched.contains_key(uri)
    }

    /// Adds a subscription, which gets notifications from now on. Returns the number to remove it by. Numbers
    /// increase.
    pub(crate) fn add(&self, subscription: Subscription) -> u64 {
        let mut state = self.lock();
        state.next += 1;
        let number = state.next;
        state.open.push((number, subscription));
        number
    }

    pub(crate) fn remove(&self, number: u64) {
        self.lock().open.retain(|(one, _)| *one != number);
    }

    /// Ends all subscriptions and their watches. Returns the final message for each.
    pub(crate) fn end(&self) -> Vec<Message> {
        let all = std::mem::take(&mut *self.lock());
        all.open.iter().map(|(_, subscription)| subscription.ended()).collect()
    }

    /// Finds the first subscription with a number above `last` that wants the notification. Returns its number, and
    /// the notification as it gets it.
    pub(crate) fn event_after(&self, last: u64, notification: &Message) -> Option<(u64, Message)> {
        let state = self.lock();
        let mut others = state.open.iter().skip_while(|(number, _)| *number <= last);
        others.find_map(|(number, subscription)| Some((*number, subscription.event(notification)?)))
    }

    fn lock(&self) -> MutexGuard<'_, OpenSubscriptions> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
