//! Sizes and durations as people write them: a number and a unit.

use std::time::Duration;

/// Bytes of "16MiB", "1.5 GB" or "512B".
pub(crate) fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let scale: u64 = match unit {
        "B" => 1,
        "KB" | "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    let bytes = number * scale as f64;
    (bytes < u64::MAX as f64).then_some(bytes.round() as u64)
}

/// "250ms", "1.5s", "2m" or "1h".
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let seconds = match unit {
        "us" => number / 1e6,
        "ms" => number / 1e3,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok()
}

/// A non-negative decimal number and what follows it.
fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    Some((text[..end].parse().ok()?, text[end..].trim_start()))
}

/// The shortest exact binary unit, for messages.
pub(super) fn show_size(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let exact =
        units.iter().find(|(shift, _)| bytes >> shift << shift == bytes && bytes >> shift > 0);
    match exact {
        Some((shift, unit)) => format!("{}{unit}", bytes >> shift),
        None => format!("{bytes}B"),
    }
}

/// The largest exact unit, for messages.
pub(super) fn show_duration(duration: Duration) -> String {
    let micros = duration.as_micros();
    let units = [(3_600_000_000, "h"), (60_000_000, "m"), (1_000_000, "s"), (1000, "ms")];
    let exact = units.iter().find(|(scale, _)| micros.is_multiple_of(*scale) && micros >= *scale);
    match exact {
        Some((scale, unit)) => format!("{}{unit}", micros / scale),
        None => format!("{micros}us"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_need_a_known_unit() {
        let cases = [
            ("512MiB", Some(512 << 20)),
            ("1.5 GiB", Some(3 << 29)),
            ("16MB", Some(16_000_000)),
            ("7B", Some(7)),
            ("16", None),
            ("MiB", None),
            ("1..5MiB", None),
            ("-1MiB", None),
            ("16mib", None),
            ("99999999999TiB", None),
        ];
        for (text, expected) in cases {
            assert_eq!(size(text), expected, "{text}");
        }
    }

    #[test]
    fn durations_need_a_known_unit() {
        let cases = [
            ("30s", Some(Duration::from_secs(30))),
            ("250ms", Some(Duration::from_millis(250))),
            ("1.5m", Some(Duration::from_secs(90))),
            ("2h", Some(Duration::from_secs(7200))),
            ("30", None),
            ("30 sec", None),
            ("s", None),
            ("99999999999999999999999h", None),
        ];
        for (text, expected) in cases {
            assert_eq!(duration(text), expected, "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_as_they_would_be_written() {
        for bytes in [1, 1023, 1024, 1 << 20, 3 << 29, 1 << 40, (1 << 40) + 1] {
            assert_eq!(size(&show_size(bytes)), Some(bytes));
        }
    }

    #[test]
    fn durations_are_shown_as_they_would_be_written() {
        for micros in [0, 1, 1000, 1500, 1_000_000, 90_000_000, 7_200_000_000] {
            let shown = Duration::from_micros(micros);
            assert_eq!(duration(&show_duration(shown)), Some(shown));
        }
    }
}
