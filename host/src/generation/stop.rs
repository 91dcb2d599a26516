//! Stop strings over text that arrives in pieces.
//!
//! Text is held back while its end may be the beginning of a stop string, so that nothing of one
//! is ever shown. The result does not depend on where the pieces were cut: a text ends where the
//! first stop string is complete, and of several that end there the longest counts.

/// Looks for stop strings in a growing text.
#[derive(Clone, Debug)]
pub(super) struct StopStrings {
    strings: Vec<String>,
    include: bool,
    held: String,
}

/// What a piece of text led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scanned {
    /// Text that may be shown now.
    pub(super) text: String,
    /// The stop string that was found; the text ends here.
    pub(super) stop: Option<String>,
}

impl StopStrings {
    /// `include`: whether the stop string that is found is shown too.
    pub(super) fn new(strings: Vec<String>, include: bool) -> Self {
        assert!(strings.iter().all(|s| !s.is_empty()), "an empty stop string");
        Self { strings, include, held: String::new() }
    }

    /// Takes the next piece of text.
    pub(super) fn push(&mut self, text: &str) -> Scanned {
        self.held.push_str(text);
        if let Some((start, stop)) = self.first_match() {
            let end = start + stop.len();
            self.held.truncate(if self.include { end } else { start });
            return Scanned { text: std::mem::take(&mut self.held), stop: Some(stop) };
        }
        let keep = self.held.len() - self.possible_beginning();
        Scanned { text: self.held.drain(..keep).collect(), stop: None }
    }

    /// Gives back what was held: the text ends without a stop string.
    pub(super) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// The match that ends first, of those the one that starts first.
    fn first_match(&self) -> Option<(usize, String)> {
        let found = self.strings.iter().filter_map(|s| Some((self.held.find(s.as_str())?, s)));
        let (start, stop) = found.min_by_key(|(start, s)| (start + s.len(), *start))?;
        Some((start, stop.clone()))
    }

    /// Bytes at the end of the held text that begin a stop string.
    fn possible_beginning(&self) -> usize {
        let longest = |stop: &String| {
            let mut cuts = stop.char_indices().map(|(at, _)| at).rev();
            cuts.find(|&cut| self.held.ends_with(&stop[..cut])).unwrap_or(0)
        };
        self.strings.iter().map(longest).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(stops: &[&str], pieces: &[&str], text: &str, stop: Option<&str>) {
        let strings = stops.iter().map(ToString::to_string).collect();
        let mut scanner = StopStrings::new(strings, false);
        let mut shown = String::new();
        let mut found = None;
        for piece in pieces {
            let scanned = scanner.push(piece);
            shown += &scanned.text;
            if scanned.stop.is_some() {
                found = scanned.stop;
                break;
            }
        }
        shown += &scanner.finish();
        assert_eq!((shown.as_str(), found.as_deref()), (text, stop), "{stops:?} in {pieces:?}");
    }

    #[test]
    fn a_stop_string_is_cut_out_wherever_it_was_split() {
        check(&["END"], &["one EN", "D two"], "one ", Some("END"));
        check(&["END"], &["one E", "N", "D"], "one ", Some("END"));
        check(&["END"], &["one EN", "EN", "D"], "one EN", Some("END"));
        check(&["END"], &["one EN"], "one EN", None);
        check(&["\n\n", "###"], &["a\n", "b##", "\n", "\nc"], "a\nb##", Some("\n\n"));
        check(&["aab"], &["aaa", "ab"], "aa", Some("aab"));
        check(&["é!"], &["caf", "é", "!"], "caf", Some("é!"));
        check(&[], &["a", "b"], "ab", None);
    }

    #[test]
    fn the_first_to_end_wins_and_of_those_the_longest() {
        check(&["abcd", "bc"], &["xabcd"], "xa", Some("bc"));
        check(&["bc", "abc"], &["xabc"], "x", Some("abc"));
    }

    #[test]
    fn nothing_of_a_stop_string_is_shown_early() {
        let mut scanner = StopStrings::new(vec!["<end>".into()], false);
        assert_eq!(scanner.push("text <en").text, "text ");
        assert_eq!(scanner.push("d").text, "");
        assert_eq!(scanner.push("!").text, "<end!");
    }

    #[test]
    fn the_stop_string_is_shown_if_asked() {
        let mut scanner = StopStrings::new(vec!["END".into()], true);
        assert_eq!(scanner.push("a E").text, "a ");
        let scanned = scanner.push("ND b");
        assert_eq!(scanned, Scanned { text: "END".into(), stop: Some("END".into()) });
    }

    /// Where the text ends, found character by character.
    fn oracle(stops: &[String], text: &str) -> (String, Option<String>) {
        for end in (0..=text.len()).filter(|&end| text.is_char_boundary(end)) {
            let ending = stops.iter().filter(|stop| text[..end].ends_with(stop.as_str()));
            if let Some(stop) = ending.max_by_key(|stop| stop.len()) {
                return (text[..end - stop.len()].to_owned(), Some(stop.clone()));
            }
        }
        (text.to_owned(), None)
    }

    proptest! {
        #[test]
        fn any_cut_gives_what_the_whole_gives(
            stops in prop::collection::vec("[abé]{1,4}", 0..4),
            pieces in prop::collection::vec("[abé]{0,5}", 0..12),
        ) {
            let mut scanner = StopStrings::new(stops.clone(), false);
            let mut shown = String::new();
            let mut found = None;
            for piece in &pieces {
                let scanned = scanner.push(piece);
                shown += &scanned.text;
                found = scanned.stop;
                if found.is_some() {
                    break;
                }
            }
            shown += &scanner.finish();
            prop_assert_eq!((shown, found), oracle(&stops, &pieces.concat()));
        }
    }
}
