//! Columns of wrapped text.

use std::fmt::Write;

/// Narrower columns are put below instead of beside.
const NARROWEST: usize = 28;

const GAP: &str = "  ";

/// Titled texts beside each other, in as many bands as the width asks for.
pub(super) fn lay_out(columns: &[(String, String)], width: usize) -> String {
    let beside = ((width + GAP.len()) / (NARROWEST + GAP.len())).clamp(1, columns.len().max(1));
    let room = (width + GAP.len()) / beside - GAP.len().min(width / beside);
    let bands = columns.chunks(beside).map(|band| lay_out_band(band, room.max(1)));
    bands.collect::<Vec<_>>().join("\n")
}

fn lay_out_band(band: &[(String, String)], room: usize) -> String {
    let columns: Vec<Vec<String>> = band
        .iter()
        .map(|(title, text)| {
            let head = [title.chars().take(room).collect(), "-".repeat(room)];
            head.into_iter().chain(wrap(text, room)).collect()
        })
        .collect();
    let height = columns.iter().map(Vec::len).max().unwrap_or_default();
    let mut table = String::new();
    for row in 0..height {
        let cells = columns.iter().map(|column| column.get(row).map_or("", String::as_str));
        let cells: Vec<_> = cells.map(|cell| format!("{cell:<room$}")).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(table, "{}", cells.join(GAP).trim_end());
    }
    table
}

/// Lines of at most `room` characters, broken at spaces where there are any.
fn wrap(text: &str, room: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split_inclusive(' ') {
            let length = line.chars().count();
            if length > 0 && length + word.trim_end().chars().count() > room {
                lines.push(std::mem::take(&mut line).trim_end().to_owned());
            }
            for c in word.chars() {
                if line.chars().count() == room && c != ' ' {
                    lines.push(std::mem::take(&mut line));
                }
                line.push(c);
            }
        }
        lines.push(line.trim_end().to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn columns_stand_beside_each_other_while_they_fit() {
        let columns = [("base", "one two three"), ("sql", "SELECT 1\nFROM t")];
        let columns = columns.map(|(title, text)| (title.to_owned(), text.to_owned()));
        let rule = "-".repeat(29);
        let expected = format!(
            "base                           sql\n{rule}  {rule}\n\
             one two three                  SELECT 1\n                               FROM t\n"
        );
        assert_eq!(lay_out(&columns, 60), expected);
        let rule = "-".repeat(40);
        let expected = format!("base\n{rule}\none two three\n\nsql\n{rule}\nSELECT 1\nFROM t\n");
        assert_eq!(lay_out(&columns, 40), expected);
    }

    proptest! {
        #[test]
        fn wrapping_keeps_every_word_and_the_width(
            text in "([a-zé]{1,9}[ \n]?){0,30}", room in 1usize..20,
        ) {
            let lines = wrap(&text, room);
            prop_assert!(lines.iter().all(|line| line.chars().count() <= room), "{lines:?}");
            let letters = |text: &str| text.split_whitespace().collect::<String>();
            prop_assert_eq!(letters(&lines.concat()), letters(&text));
        }
    }
}
