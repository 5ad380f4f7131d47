//! Bytes as decisions: each byte answers one question, and 0 is the choice of a correct peer.

use std::time::Duration;

/// The bytes that are not used yet.
pub(in super::super) struct Script {
    bytes: Vec<u8>,
    at: usize,
    repeats: bool,
}

impl Script {
    pub(in super::super) fn new(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), at: 0, repeats: false }
    }

    /// Returns the rest as its own script, optionally repeated.
    pub(in super::super) fn rest(self, repeats: bool) -> Self {
        let bytes = self.bytes.get(self.at..).unwrap_or_default().to_vec();
        Self { repeats: repeats && !bytes.is_empty(), bytes, at: 0 }
    }

    /// Returns the next byte, or 0 after the last one.
    pub(in super::super) fn byte(&mut self) -> u8 {
        if self.repeats && self.at == self.bytes.len() {
            self.at = 0;
        }
        let byte = self.bytes.get(self.at).copied();
        self.at += usize::from(byte.is_some());
        byte.unwrap_or_default()
    }

    /// Picks one of these.
    pub(in super::super) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::from(self.byte()) % of.len()]
    }

    /// Returns a number below this one.
    pub(in super::super) fn below(&mut self, limit: u8) -> u8 {
        self.byte() % limit
    }

    pub(in super::super) fn yes(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// Returns some of the next bytes unchanged.
    pub(in super::super) fn text(&mut self) -> Vec<u8> {
        (0..self.below(64)).map(|_| self.byte()).collect()
    }

    /// Returns a delay, mostly zero.
    pub(in super::super) fn wait(&mut self) -> Duration {
        Duration::from_millis(self.pick(&[0, 0, 0, 0, 1, 30, 300, 2_000, 9_000, 20_000]))
    }
}
