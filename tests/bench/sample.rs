//! A series of measurements and what is told of it.

use std::fmt;
use std::time::Instant;

/// Sorted values.
#[derive(Debug)]
pub(crate) struct Sample(Vec<f64>);

impl Sample {
    pub(crate) fn new(mut values: Vec<f64>) -> Self {
        assert!(!values.is_empty(), "something was measured");
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    /// Times an operation, in milliseconds.
    pub(crate) fn of(rounds: usize, mut operation: impl FnMut()) -> Self {
        Self::of_prepared(rounds, || (), &mut operation)
    }

    /// The same, with something before each round that is not timed.
    pub(crate) fn of_prepared(
        rounds: usize,
        mut prepare: impl FnMut(),
        mut operation: impl FnMut(),
    ) -> Self {
        let mut values = Vec::with_capacity(rounds);
        for _ in 0..rounds.max(1) {
            prepare();
            let begun = Instant::now();
            operation();
            values.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        Self::new(values)
    }

    pub(crate) fn median(&self) -> f64 {
        self.at(5)
    }

    /// The value below which so many tenths lie.
    fn at(&self, tenths: usize) -> f64 {
        self.0[(self.0.len() * tenths / 10).min(self.0.len() - 1)]
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>9.2}  (p10 {:.2}, p90 {:.2}, {} rounds)",
            self.median(),
            self.at(1),
            self.at(9),
            self.0.len()
        )
    }
}
