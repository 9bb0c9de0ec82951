//! The tree as a picture: boxes below each other, each moved to the right of what it hangs below.

use super::tree::{Look, Tree};

/// All lengths are in pixels.
const LINE: usize = 18;
const PADDING: usize = 8;
const GAP: usize = 14;
const STEP: usize = 36;
const MARGIN: usize = 16;
/// How wide a letter of the font is taken to be.
const LETTER: usize = 8;

/// A picture with a box for each box of the tree.
pub(super) fn draw(tree: &Tree) -> String {
    let boxes = tree.walk();
    let width = |shown: &Tree| {
        let lines = std::iter::once(&shown.title).chain(&shown.lines);
        lines.map(|line| line.chars().count()).max().unwrap_or_default() * LETTER + 2 * PADDING
    };
    let right = boxes.iter().map(|(depth, shown)| MARGIN + depth * STEP + width(shown)).max();
    let (mut body, mut top) = (String::new(), MARGIN);
    // Where the last box of each depth so far ends.
    let mut path: Vec<usize> = Vec::new();
    for (depth, shown) in &boxes {
        let (left, height) = (MARGIN + depth * STEP, (1 + shown.lines.len()) * LINE + PADDING);
        path.truncate(*depth);
        if let Some(end) = path.last() {
            let (x, y) = (left - STEP / 2, top + LINE / 2 + PADDING / 2);
            body +=
                &format!("  <path d=\"M{x} {end} V{y} H{left}\" fill=\"none\" stroke=\"#666\"/>\n");
        }
        path.push(top + height);
        let (fill, stroke) = colours(shown.look);
        body += &format!(
            "  <rect x=\"{left}\" y=\"{top}\" width=\"{}\" height=\"{height}\" rx=\"4\" \
             fill=\"{fill}\" stroke=\"{stroke}\"/>\n",
            width(shown)
        );
        let lines = std::iter::once(&shown.title).chain(&shown.lines);
        for (number, line) in lines.enumerate() {
            let (x, y) = (left + PADDING, top + (number + 1) * LINE - PADDING / 4);
            let weight = if number == 0 { " font-weight=\"bold\"" } else { "" };
            body += &format!("  <text x=\"{x}\" y=\"{y}\"{weight}>{}</text>\n", escape(line));
        }
        top += height + GAP;
    }
    let (width, height) = (right.unwrap_or_default() + MARGIN, top - GAP + MARGIN);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"monospace\" font-size=\"13\">\n  \
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{body}</svg>\n"
    )
}

fn colours(look: Look) -> (&'static str, &'static str) {
    match look {
        Look::Plain => ("#fff", "#444"),
        Look::Active => ("#d5f5d5", "#2b7a2b"),
        Look::Prepared => ("#dce8fb", "#2b4f7a"),
        Look::Old => ("#eee", "#888"),
        Look::Tainted => ("#fbdcdc", "#a02020"),
    }
}

fn escape(line: &str) -> String {
    line.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::tree::tests::sample;
    use super::*;

    #[test]
    fn every_line_is_in_the_picture_and_no_text_is_markup() {
        let (tree, picture) = (sample(), draw(&sample()));
        for (_, shown) in tree.walk() {
            for line in std::iter::once(&shown.title).chain(&shown.lines) {
                assert!(picture.contains(&format!(">{}</text>", escape(line))), "{line}");
            }
        }
        assert_eq!(picture.matches("<rect x=").count(), 10);
        assert_eq!(picture.matches("<path ").count(), 9);
        assert!(picture.contains("CN=&lt;own&gt;") && !picture.contains("<own>"));
        assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
    }
}
