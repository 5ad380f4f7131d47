//! Filters by name which of the server's tools the client may see and call.

use wildmatch::WildMatch;

/// The tools that the client may see and call; all of them by default.
#[derive(Clone, Debug, Default)]
pub struct ToolFilter {
    allowed: Vec<WildMatch>,
    denied: Vec<WildMatch>,
}

impl ToolFilter {
    /// Lets a tool pass if its name matches a pattern of `allowed` (or `allowed` is empty) and no pattern of `denied`.
    pub fn new<T: AsRef<str>>(allowed: &[T], denied: &[T]) -> Self {
        let patterns = |texts: &[T]| texts.iter().map(|text| WildMatch::new(text.as_ref())).collect();
        Self { allowed: patterns(allowed), denied: patterns(denied) }
    }

    /// True if every tool passes.
    pub fn is_empty(&self) -> bool {
        self.allowed.is_empty() && self.denied.is_empty()
    }

    /// True if the tool of this name passes.
    pub fn allows_tool(&self, name: &str) -> bool {
        let is_like = |patterns: &[WildMatch]| patterns.iter().any(|pattern| pattern.matches(name));
        (self.allowed.is_empty() || is_like(&self.allowed)) && !is_like(&self.denied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tool_filter_patterns_match_whole_names() {
        for (allowed, denied, passing, hidden) in [
            (&[][..], &["delete_*"][..], &["delete", "undelete_x", "DELETE_x"][..], &["delete_", "delete_all"][..]),
            (&["get_*", "list?"], &["get_secret*"], &["get_a", "lists"], &["get_secret", "list", "listed", "put"]),
            (&[], &["*"], &[], &["", "a"]),
            (&["a"], &[], &["a"], &["", "b", "aa"]),
            (&["é?"], &[], &["éü"], &["é"]),
        ] {
            let filter = ToolFilter::new(allowed, denied);
            for name in passing {
                assert!(filter.allows_tool(name), "{name}");
            }
            for name in hidden {
                assert!(!filter.allows_tool(name), "{name}");
            }
        }
    }
}
