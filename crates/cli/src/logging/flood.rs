//! Limits how often each call site can log, so that a peer cannot flood the log (no I/O).
//!
//! Each call site can log [`MAX_LINES`] different lines within [`PERIOD`], none of them twice. Further lines are
//! counted, and the count is logged when the period is over. So the first line of each kind is always logged, a peer
//! that sends a million bad events causes only a few lines, and after a quiet time the same line is logged again.
//!
//! Rule: memory use depends on the number of call sites in the program, never on what peers send. Lines that are only
//! counted are not formatted: after [`MAX_FORMATTED_LINES`] lines of a call site, the rest of its period is not formatted
//! either.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

use tracing::{Metadata, callsite::Identifier};

/// How long a line that was logged is not logged again.
const PERIOD: Duration = Duration::from_mins(1);
/// The most different lines of a call site that are logged within a period.
const MAX_LINES: usize = 10;
/// The most lines of a call site that are formatted and compared within a period.
const MAX_FORMATTED_LINES: u32 = 1000;

/// The call sites that have logged.
#[derive(Default)]
pub(super) struct Flood {
    sites: HashMap<Identifier, Site>,
    /// Keyed per process, so that peers cannot construct collisions.
    hasher: RandomState,
}

struct Site {
    metadata: &'static Metadata<'static>,
    /// When the period began.
    since: Instant,
    looks: u32,
    /// Hashes of the lines of this period.
    said: Vec<u64>,
    /// The message of the last of these lines.
    message: String,
    unsaid: u64,
}

/// The decision on a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Log it.
    Say,
    /// Count it.
    Count,
    /// Count it. It is the first counted line, and the period ends at this time.
    CountUntil(Instant),
}

/// Lines that were counted within a period.
#[derive(Debug)]
pub(super) struct SuppressedLines {
    pub(super) metadata: &'static Metadata<'static>,
    pub(super) count: u64,
    /// The message of the last line that was logged.
    pub(super) message: String,
}

impl Flood {
    /// Decides on a line before it is formatted. On `Say`, format it and pass it to `judge`.
    pub(super) fn take(&mut self, metadata: &'static Metadata<'static>, now: Instant) -> Verdict {
        let site = self.sites.entry(metadata.callsite()).or_insert_with(|| Site::new(metadata, now));
        if site.is_over(now) && site.unsaid == 0 {
            *site = Site::new(metadata, now);
        }
        if site.looks == MAX_FORMATTED_LINES || site.said.len() == MAX_LINES {
            return site.count();
        }
        site.looks += 1;
        Verdict::Say
    }

    /// Decides whether this line is new. `text` is all of it except the time, `message` its message.
    pub(super) fn judge(&mut self, metadata: &'static Metadata<'static>, text: &str, message: &str) -> Verdict {
        let hash = self.hasher.hash_one(text);
        let Some(site) = self.sites.get_mut(&metadata.callsite()) else { return Verdict::Say };
        if site.said.contains(&hash) {
            return site.count();
        }
        site.said.push(hash);
        message.clone_into(&mut site.message);
        Verdict::Say
    }

    /// Returns the counts of the periods that are over at this time, or of all periods, and resets them.
    pub(super) fn unsaid(&mut self, now: Option<Instant>) -> Vec<SuppressedLines> {
        let is_due = |site: &&mut Site| site.unsaid > 0 && now.is_none_or(|now| site.is_over(now));
        let unsaid = |site: &mut Site| {
            // The next period counts from zero.
            let new = Site::new(site.metadata, now.unwrap_or(site.since));
            let Site { metadata, unsaid: count, message, .. } = std::mem::replace(site, new);
            SuppressedLines { metadata, count, message }
        };
        self.sites.values_mut().filter(is_due).map(unsaid).collect()
    }
}

impl Site {
    fn new(metadata: &'static Metadata<'static>, since: Instant) -> Self {
        Self { metadata, since, looks: 0, said: Vec::new(), message: String::new(), unsaid: 0 }
    }

    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= PERIOD
    }

    fn count(&mut self) -> Verdict {
        self.unsaid += 1;
        if self.unsaid == 1 { Verdict::CountUntil(self.since + PERIOD) } else { Verdict::Count }
    }
}

#[cfg(test)]
mod tests {
    use tracing::{Level, callsite::Callsite, field::FieldSet, subscriber::Interest};

    use super::*;

    struct Place(u8);

    static PLACES: [Place; 2] = [Place(0), Place(1)];
    static METADATA: [Metadata<'static>; 2] = [metadata(&PLACES[0]), metadata(&PLACES[1])];

    const fn metadata(place: &'static Place) -> Metadata<'static> {
        let fields = FieldSet::new(&[], Identifier(place));
        Metadata::new("test", "test", Level::WARN, None, None, None, fields, tracing::metadata::Kind::EVENT)
    }

    impl Callsite for Place {
        fn set_interest(&self, _: Interest) {}

        fn metadata(&self) -> &Metadata<'_> {
            &METADATA[usize::from(self.0)]
        }
    }

    /// True if this line is logged.
    fn says(flood: &mut Flood, site: usize, text: &str, now: Instant) -> bool {
        flood.take(&METADATA[site], now) == Verdict::Say && flood.judge(&METADATA[site], text, text) == Verdict::Say
    }

    #[test]
    fn repeated_log_lines_are_counted_and_written_again_in_a_later_period() {
        let (mut flood, start) = (Flood::default(), Instant::now());
        assert!(says(&mut flood, 0, "a", start) && says(&mut flood, 0, "b", start) && says(&mut flood, 1, "a", start));
        for _ in 0..1_000_000 {
            assert!(!says(&mut flood, 0, "a", start));
        }
        assert!(flood.unsaid(Some(start + PERIOD / 2)).is_empty());
        let later = start + PERIOD;
        let [unsaid] = flood.unsaid(Some(later)).try_into().unwrap();
        assert_eq!((unsaid.count, &*unsaid.message), (1_000_000, "b"));
        assert!(flood.unsaid(None).is_empty());
        assert!(says(&mut flood, 0, "a", later) && !says(&mut flood, 0, "a", later + PERIOD / 2));
        assert!(says(&mut flood, 1, "a", later), "nothing was counted, and the period is over");
        assert_eq!(flood.unsaid(None).len(), 1);
    }

    #[test]
    fn distinct_log_lines_of_one_call_site_are_limited() {
        let (mut flood, now) = (Flood::default(), Instant::now());
        let said = (0..100_000).filter(|number| says(&mut flood, 0, &number.to_string(), now)).count();
        assert_eq!(said, MAX_LINES);
        assert!(says(&mut flood, 1, "another", now), "call sites are independent");
        let [unsaid] = flood.unsaid(None).try_into().unwrap();
        assert_eq!(unsaid.count, 100_000 - MAX_LINES as u64);
        assert!(flood.sites.values().all(|site| site.said.len() <= MAX_LINES));
    }

    #[test]
    fn new_log_line_is_written_among_many_repeated_ones() {
        let (mut flood, now) = (Flood::default(), Instant::now());
        for _ in 0..900 {
            says(&mut flood, 0, "a", now);
        }
        assert!(says(&mut flood, 0, "b", now));
        for _ in 0..900 {
            says(&mut flood, 0, "a", now);
        }
        assert_eq!(flood.take(&METADATA[0], now), Verdict::Count, "formatting stops at a limit");
    }

    #[test]
    fn first_suppressed_log_line_sets_the_time_of_the_summary() {
        let (mut flood, start) = (Flood::default(), Instant::now());
        says(&mut flood, 0, "a", start);
        flood.take(&METADATA[0], start);
        assert_eq!(flood.judge(&METADATA[0], "a", "a"), Verdict::CountUntil(start + PERIOD));
        flood.take(&METADATA[0], start);
        assert_eq!(flood.judge(&METADATA[0], "a", "a"), Verdict::Count);
    }
}
