//! Numbers of bytes as people write them.

use std::fmt;
use std::str::FromStr;

/// A number of bytes. As text it is a number with a unit or none: `4096`, `512K`, `500M`, `2G`, `1T`, with 1024 of one in the next; also
/// `2GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(
    /// Bytes.
    pub u64,
);

/// A text is no number of bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a size is a number, and K, M, G or T behind it unless it is bytes")]
pub struct ByteSizeError;

const UNITS: [&str; 4] = ["K", "M", "G", "T"];

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, ByteSizeError> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit = unit.strip_suffix("iB").or_else(|| unit.strip_suffix('B')).unwrap_or(unit);
        let number: u64 = number.parse().map_err(|_| ByteSizeError)?;
        let power = match UNITS.iter().position(|known| unit.eq_ignore_ascii_case(known)) {
            Some(at) => at as u32 + 1,
            None if unit.is_empty() => 0,
            None => return Err(ByteSizeError),
        };
        number.checked_mul(1 << (10 * power)).map(Self).ok_or(ByteSizeError)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = *self;
        let power = (1..=UNITS.len()).rev().find(|power| bytes >> (10 * power) != 0);
        match power {
            None => write!(f, "{bytes} B"),
            // A tenth is enough to know, and in a float for display only.
            Some(power) => {
                write!(f, "{:.1} {}iB", bytes as f64 / (1u64 << (10 * power)) as f64, UNITS[power - 1])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("3K", 3 << 10),
            ("500m", 500 << 20),
            ("2GiB", 2 << 30),
            ("1TB", 1 << 40),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "G", "-1", "1.5G", "1X", "2 G", "99999999999T", "1 ", "1GG"] {
            assert_eq!(text.parse::<ByteSize>(), Err(ByteSizeError), "{text}");
        }
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
    }
}
