//! Dates as Python's `strftime` writes them, in English.

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] =
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// A day of the Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Date {
    year: i64,
    /// From 1.
    month: usize,
    /// From 1.
    day: i64,
}

impl Date {
    /// Reads `2026-11-22`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '-');
        let year = parts.next()?.parse().ok().filter(|year| (1..=9999).contains(year))?;
        let month = parts.next()?.parse().ok().filter(|month| (1..=12).contains(month))?;
        let day = parts.next()?.parse().ok().filter(|day| (1..=31).contains(day))?;
        Some(Self { year, month, day })
    }

    /// Writes the date; the time of day is midnight. Unknown directives are left as they are.
    pub(super) fn format(self, format: &str) -> String {
        let mut out = String::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let (pad, directive) = match chars.next() {
                Some('-') => (false, chars.next()),
                directive => (true, directive),
            };
            let Some(directive) = directive else {
                out.push('%');
                break;
            };
            out.push_str(&self.directive(directive, pad));
        }
        out
    }

    fn directive(self, directive: char, pad: bool) -> String {
        let number = |value: i64, width: usize| {
            if pad { format!("{value:0width$}") } else { value.to_string() }
        };
        let month = MONTHS[self.month - 1];
        let weekday = self.weekday();
        match directive {
            'Y' => number(self.year, 4),
            'y' => number(self.year % 100, 2),
            'm' => number(self.month as i64, 2),
            'd' => number(self.day, 2),
            'e' => format!("{:>2}", self.day),
            'B' => month.to_owned(),
            'b' | 'h' => month[..3].to_owned(),
            'A' => DAYS[weekday].to_owned(),
            'a' => DAYS[weekday][..3].to_owned(),
            'w' => ((weekday + 1) % 7).to_string(),
            'u' => (weekday + 1).to_string(),
            'j' => number(self.day_of_year(), 3),
            'H' | 'M' | 'S' => number(0, 2),
            'I' => number(12, 2),
            'p' => "AM".to_owned(),
            'F' => self.format("%Y-%m-%d"),
            'D' => self.format("%m/%d/%y"),
            'T' => "00:00:00".to_owned(),
            '%' => "%".to_owned(),
            other => format!("%{other}"),
        }
    }

    /// Days since Monday.
    fn weekday(self) -> usize {
        // Zeller's congruence counts January and February to the year before.
        let before_march = self.month < 3;
        let year = self.year - i64::from(before_march);
        let month = self.month as i64 + if before_march { 12 } else { 0 };
        let day = self.day + 13 * (month + 1) / 5 + year + year / 4 - year / 100 + year / 400;
        // `day % 7` is 0 on Saturday.
        ((day + 5) % 7) as usize
    }

    fn day_of_year(self) -> i64 {
        let leap = self.year % 4 == 0 && (self.year % 100 != 0 || self.year % 400 == 0);
        let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334][self.month - 1];
        before + self.day + i64::from(leap && self.month > 2)
    }
}
