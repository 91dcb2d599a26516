//! Scanning in chunks finds what one look at the whole text finds, and holds no more than it must.

use proptest::prelude::*;

use super::*;

const MARKERS: [&str; 5] = ["<a>", "<a", "</a>", "<ab>é", "::"];

/// A piece with its text.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Owned {
    Text(String),
    Marker(usize),
}

fn drain(scanner: &mut Scanner, pieces: &mut Vec<Owned>) {
    while let Some(piece) = scanner.next(&MARKERS) {
        match (pieces.last_mut(), piece) {
            (Some(Owned::Text(last)), Piece::Text(more)) => last.push_str(more),
            (_, Piece::Text(text)) => pieces.push(Owned::Text(text.to_owned())),
            (_, Piece::Marker(marker)) => pieces.push(Owned::Marker(marker)),
        }
    }
}

fn scan<'a>(chunks: impl IntoIterator<Item = &'a str>) -> Vec<Owned> {
    let mut scanner = Scanner::default();
    let mut pieces = Vec::new();
    for chunk in chunks {
        scanner.push(chunk);
        drain(&mut scanner, &mut pieces);
        let held = scanner.rest();
        let may_become = |marker: &&str| marker.len() > held.len() && marker.starts_with(held);
        assert!(held.is_empty() || MARKERS.iter().any(may_become), "held {held:?}");
    }
    scanner.close();
    drain(&mut scanner, &mut pieces);
    assert_eq!(scanner.rest(), "", "all is handed out in the end");
    pieces
}

/// The first and longest marker at each place of the whole text.
fn reference(text: &str) -> Vec<Owned> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let found = (0..MARKERS.len()).filter(|&i| rest.starts_with(MARKERS[i]));
        if let Some(marker) = found.max_by_key(|&i| MARKERS[i].len()) {
            if !plain.is_empty() {
                pieces.push(Owned::Text(std::mem::take(&mut plain)));
            }
            pieces.push(Owned::Marker(marker));
            rest = &rest[MARKERS[marker].len()..];
        } else {
            plain.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    if !plain.is_empty() {
        pieces.push(Owned::Text(plain));
    }
    pieces
}

fn check(chunks: &[&str], expected: &[Owned]) {
    assert_eq!(scan(chunks.iter().copied()), expected, "{chunks:?}");
}

fn text(text: &str) -> Owned {
    Owned::Text(text.to_owned())
}

#[test]
fn markers_are_found_over_chunks() {
    check(&["x<", "a", ">y"], &[text("x"), Owned::Marker(0), text("y")]);
    check(&["<a"], &[Owned::Marker(1)]);
    check(&["<a", "b>", "é"], &[Owned::Marker(3)]);
    check(&["<a", "b>", "e"], &[Owned::Marker(1), text("b>e")]);
    check(&["<", "<", "/", "b"], &[text("<</b")]);
    check(&[":", ":", ":"], &[Owned::Marker(4), text(":")]);
    check(&["", ""], &[]);
}

#[test]
fn plain_text_is_never_held() {
    let mut scanner = Scanner::default();
    scanner.push("plain <");
    assert_eq!(scanner.next(&MARKERS), Some(Piece::Text("plain ")));
    assert_eq!(scanner.next(&MARKERS), None);
    scanner.push("b");
    assert_eq!(scanner.next(&MARKERS), Some(Piece::Text("<b")));
    scanner.push("<a>tail");
    assert_eq!(scanner.next(&MARKERS), Some(Piece::Marker(0)));
    scanner.skip(2);
    assert_eq!(scanner.rest(), "il");
}

proptest! {
    #[test]
    fn any_chunks_give_the_same_pieces(
        parts in prop::collection::vec(
            prop::sample::select(vec!["<a>", "<a", "</a>", "<ab>é", ":", "<", ">", "b", "é", "/"]),
            0..40,
        ),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let whole = parts.concat();
        let places: Vec<usize> =
            whole.char_indices().map(|(at, _)| at).chain([whole.len()]).collect();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| *cut.get(&places)).collect();
        cuts.extend([0, whole.len()]);
        cuts.sort_unstable();
        let chunks = cuts.windows(2).map(|cut| &whole[cut[0]..cut[1]]);
        prop_assert_eq!(scan(chunks), reference(&whole));
    }
}
