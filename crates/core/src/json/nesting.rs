//! The objects and arrays of a text that are open, a bit for each.

/// The deepest nesting that is read. Each level costs a bit.
pub(crate) const DEEPEST: u32 = 1 << 20;

/// The objects and arrays that are open: a bit for each, set for an object.
#[derive(Debug, Default)]
pub(super) struct Nesting {
    pub(super) depth: u32,
    /// The innermost ones, as many as there are above a multiple of 64, or 64; the last one is the lowest bit.
    bits: u64,
    /// All others.
    outer: Vec<u64>,
}

impl Nesting {
    pub(super) fn clear(&mut self) {
        self.depth = 0;
        self.bits = 0;
        self.outer.clear();
    }

    /// Gives false, and does nothing, at the limit.
    #[inline]
    pub(super) fn open(&mut self, is_object: bool) -> bool {
        if self.depth.is_multiple_of(64) {
            if self.depth == DEEPEST {
                return false;
            }
            if self.depth > 0 {
                self.outer.push(self.bits);
            }
        }
        self.bits = self.bits << 1 | u64::from(is_object);
        self.depth += 1;
        true
    }

    #[inline]
    pub(super) fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.bits >>= 1;
        if self.depth.is_multiple_of(64) {
            self.bits = self.outer.pop().unwrap_or_default();
        }
    }

    /// Whether the innermost one is an object.
    #[inline]
    pub(super) fn is_object(&self) -> bool {
        self.bits & 1 == 1
    }
}
