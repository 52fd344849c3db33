//! Container names: which are allowed, and pleasant ones for containers that got none.

use std::fmt::Write as _;

/// Longest name. Docker sets no limit; a name ends up in file names, unit properties and log fields.
pub const MAX: usize = 255;

/// Whether this may be a container's name: a letter or digit, then one or more of those, `_`, `.`, `-`.
pub fn is_valid(name: &str) -> bool {
    let bytes = name.as_bytes();
    (2..=MAX).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes[1..]
            .iter()
            .all(|&b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// A name made from random bits, `adjective_surname`. From the second attempt on (`attempt` counts
/// from 0) digits are appended, so that a crowded host finds a free one.
pub fn generate(random: u64, attempt: u32) -> String {
    let adjectives = ADJECTIVES.len() as u64;
    let surnames = SURNAMES.len() as u64;
    // Remainders of small tables, so they fit any usize.
    let adjective = ADJECTIVES[(random % adjectives) as usize];
    let surname = SURNAMES[(random / adjectives % surnames) as usize];
    let mut name = format!("{adjective}_{surname}");
    if attempt > 0 {
        let limit = 10_u64.saturating_pow(attempt.min(9));
        let _ = write!(name, "{}", random / adjectives / surnames % limit);
    }
    name
}

const ADJECTIVES: &[&str] = &[
    "agile", "alert", "amber", "ample", "ardent", "balmy", "bold", "brave", "breezy", "bright",
    "brisk", "calm", "candid", "careful", "cheerful", "civil", "clear", "clever", "coastal",
    "cordial", "cosmic", "crisp", "curious", "daring", "deft", "dreamy", "eager", "earnest",
    "easy", "elated", "elegant", "fair", "faithful", "fearless", "fleet", "fond", "frank", "free",
    "fresh", "gallant", "gentle", "genuine", "gleeful", "golden", "graceful", "grand", "happy",
    "hardy", "hearty", "helpful", "honest", "hopeful", "humble", "jolly", "jovial", "keen", "kind",
    "lively", "loyal", "lucid", "lucky", "mellow", "merry", "mighty", "modest", "neat", "nimble",
    "noble", "patient", "placid", "playful", "plucky", "polite", "proud", "prudent", "quick",
    "quiet", "radiant", "ready", "robust", "rosy", "sage", "serene", "sharp", "silent", "sincere",
    "snug", "sober", "solid", "spry", "steady", "sturdy", "sunny", "swift", "tender", "thrifty",
    "tidal", "tidy", "tranquil", "trusty", "upbeat", "valiant", "vivid", "warm", "wise", "witty",
    "zesty",
];

const SURNAMES: &[&str] = &[
    "abel",
    "adleman",
    "agnesi",
    "anning",
    "archimedes",
    "avicenna",
    "babbage",
    "banach",
    "bell",
    "bernoulli",
    "blackwell",
    "bohr",
    "boole",
    "borg",
    "bose",
    "brahe",
    "brahmagupta",
    "cantor",
    "carson",
    "cauchy",
    "cerf",
    "chandrasekhar",
    "church",
    "clarke",
    "codd",
    "cori",
    "cray",
    "curie",
    "dalton",
    "darwin",
    "davinci",
    "diffie",
    "dijkstra",
    "einstein",
    "engelbart",
    "eratosthenes",
    "erdos",
    "euclid",
    "euler",
    "faraday",
    "fermat",
    "fermi",
    "feynman",
    "fibonacci",
    "floyd",
    "fourier",
    "franklin",
    "galileo",
    "galois",
    "gauss",
    "germain",
    "goedel",
    "goldberg",
    "goodall",
    "hamilton",
    "hamming",
    "hawking",
    "heisenberg",
    "hellman",
    "herschel",
    "hertz",
    "hilbert",
    "hodgkin",
    "hopper",
    "hubble",
    "huygens",
    "hypatia",
    "jennings",
    "johnson",
    "joliot",
    "kalam",
    "keller",
    "kepler",
    "khayyam",
    "knuth",
    "kovalevsky",
    "lagrange",
    "lamarr",
    "lamport",
    "laplace",
    "leavitt",
    "leibniz",
    "linnaeus",
    "liskov",
    "lovelace",
    "margulis",
    "maxwell",
    "mccarthy",
    "mcclintock",
    "meitner",
    "mendel",
    "mendeleev",
    "merkle",
    "mirzakhani",
    "napier",
    "neumann",
    "newton",
    "noether",
    "nobel",
    "pascal",
    "pasteur",
    "payne",
    "perlman",
    "planck",
    "poincare",
    "ptolemy",
    "pythagoras",
    "raman",
    "ramanujan",
    "rhodes",
    "riemann",
    "ritchie",
    "rivest",
    "rubin",
    "sagan",
    "salk",
    "shannon",
    "shamir",
    "sinoussi",
    "somerville",
    "stonebraker",
    "tesla",
    "tharp",
    "thompson",
    "torvalds",
    "tu",
    "turing",
    "villani",
    "volta",
    "wescoff",
    "wiles",
    "wilson",
    "wing",
    "wu",
    "yalow",
    "zhukovsky",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_rule_for_names() {
        for name in ["web", "a1", "A.b_c-d", "0x", "a.."] {
            assert!(is_valid(name), "{name}");
        }
        for name in ["", "a", "_a", "-a", ".a", "a b", "a/b", "/ab", "ä1", "a\n"] {
            assert!(!is_valid(name), "{name:?}");
        }
        assert!(!is_valid(&"a".repeat(MAX + 1)));
    }

    #[test]
    fn the_tables_hold_no_double_entries() {
        for table in [ADJECTIVES, SURNAMES] {
            assert_eq!(table.iter().collect::<BTreeSet<_>>().len(), table.len());
        }
    }

    proptest! {
        #[test]
        fn generated_names_are_valid(random: u64, attempt in 0_u32..20) {
            let name = generate(random, attempt);
            prop_assert!(is_valid(&name), "{}", name);
            prop_assert_eq!(name.ends_with(|c: char| c.is_ascii_digit()), attempt > 0);
        }
    }
}
