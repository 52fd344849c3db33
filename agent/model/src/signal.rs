//! Signal names and numbers of Linux, as users write them: with or without `SIG`, in any case, or
//! as a number. The numbers are those of all architectures that berth is built for (x86-64, arm64,
//! riscv64 and others of the generic table).

/// The highest signal number.
pub const MAX: i32 = 64;
/// First and last real-time signal as the C library leaves them to programs.
const RT_FIRST: i32 = 34;

/// Names and numbers; where a number has several names the first is the one that is shown.
const NAMES: &[(&str, i32)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("UNUSED", 31),
];

/// Not a signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid signal: {0}")]
pub struct SignalError(pub String);

/// The number that a name or number means; 1 to 64.
pub fn parse(text: &str) -> Result<i32, SignalError> {
    let fail = || SignalError(text.to_owned());
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return text
            .parse()
            .ok()
            .filter(|n| (1..=MAX).contains(n))
            .ok_or_else(fail);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Ok(*number);
    }
    real_time(name).ok_or_else(fail)
}

/// `RTMIN`, `RTMIN+n`, `RTMAX`, `RTMAX-n`; the halves meet in the middle as in the C library's names.
fn real_time(name: &str) -> Option<i32> {
    let offset = |rest: &str, sign: char| -> Option<i32> {
        if rest.is_empty() {
            return Some(0);
        }
        let digits = rest.strip_prefix(sign)?;
        (digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
    };
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        RT_FIRST.checked_add(offset(rest, '+')?)?
    } else {
        MAX.checked_sub(offset(name.strip_prefix("RTMAX")?, '-')?)?
    };
    (RT_FIRST..=MAX).contains(&number).then_some(number)
}

/// The name with `SIG`, e.g. `SIGTERM`, `SIGRTMIN+3`; a bare number where there is no name.
pub fn name(number: i32) -> String {
    if let Some((name, _)) = NAMES.iter().find(|(_, n)| *n == number) {
        return format!("SIG{name}");
    }
    match number {
        RT_FIRST => "SIGRTMIN".to_owned(),
        MAX => "SIGRTMAX".to_owned(),
        35..=49 => format!("SIGRTMIN+{}", number - RT_FIRST),
        50..=63 => format!("SIGRTMAX-{}", MAX - number),
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_parse() {
        let cases = [
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigkill", 9),
            ("9", 9),
            ("015", 15),
            ("SIGCLD", 17),
            ("POLL", 29),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX", 64),
            ("RTMAX-14", 50),
            ("64", 64),
            ("33", 33),
        ];
        for (text, number) in cases {
            assert_eq!(parse(text), Ok(number), "{text}");
        }
        for text in [
            "",
            "0",
            "65",
            "-9",
            "SIG",
            "SIGSIGKILL",
            "KILLER",
            " KILL",
            "RTMIN+31",
            "RTMIN-1",
            "RTMAX+1",
            "RTMIN+",
            "RTMIN++1",
            "9x",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        assert_eq!(
            parse("WHAT").unwrap_err().to_string(),
            "invalid signal: WHAT"
        );
    }

    #[test]
    fn every_shown_name_means_its_number() {
        for number in 1..=MAX {
            assert_eq!(parse(&name(number)), Ok(number));
        }
        assert_eq!(name(6), "SIGABRT");
        assert_eq!(name(23), "SIGURG");
    }
}
