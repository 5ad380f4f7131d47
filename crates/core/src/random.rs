//! Random numbers for jitter in waits and for unique ids. They need not be secret from an observer of the process.

/// Returns a number from 0 to 1 that differs between processes and calls.
pub(crate) fn random() -> f64 {
    use std::hash::{BuildHasher as _, RandomState};
    let bits = u32::try_from(RandomState::new().hash_one(0) >> 32).unwrap_or_default();
    f64::from(bits) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_is_a_fraction() {
        assert!((0..100).all(|_| (0.0..=1.0).contains(&random())));
    }
}
