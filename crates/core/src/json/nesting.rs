//! The open objects and arrays of a text, with a bit for each.

/// The deepest nesting that is accepted. Each level costs a bit.
pub(crate) const MAX_DEPTH: u32 = 1 << 20;

/// The open objects and arrays: a bit for each, set for an object.
#[derive(Debug, Default)]
pub(super) struct Nesting {
    pub(super) depth: u32,
    /// The innermost levels: those above a multiple of 64, or 64. The last one is the lowest bit.
    bits: u64,
    /// All other levels.
    outer: Vec<u64>,
}

impl Nesting {
    pub(super) fn clear(&mut self) {
        self.depth = 0;
        self.bits = 0;
        self.outer.clear();
    }

    /// Opens a level. Returns false and does nothing at the limit.
    #[inline]
    pub(super) fn open(&mut self, is_object: bool) -> bool {
        if self.depth.is_multiple_of(64) {
            if self.depth == MAX_DEPTH {
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

    /// True if the innermost level is an object.
    #[inline]
    pub(super) fn is_object(&self) -> bool {
        self.bits & 1 == 1
    }
}
