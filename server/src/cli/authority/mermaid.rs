//! The tree as a flowchart of Mermaid, which many wikis and code hosts draw.

use super::tree::{Look, Tree};

/// A flowchart with a box for each box of the tree.
pub(super) fn draw(tree: &Tree) -> String {
    let mut text = "flowchart TD\n".to_owned();
    let boxes = tree.walk();
    // The last box of each depth so far: what comes next one step deeper hangs below it.
    let mut path = Vec::new();
    for (number, (depth, shown)) in boxes.iter().enumerate() {
        let lines = std::iter::once(&shown.title).chain(&shown.lines);
        let lines: Vec<_> = lines.map(|line| escape(line)).collect();
        text += &format!("  n{number}[\"{}\"]{}\n", lines.join("<br/>"), class(shown.look));
        path.truncate(*depth);
        if let Some(above) = path.last() {
            text += &format!("  n{above} --> n{number}\n");
        }
        path.push(number);
    }
    text + "  classDef active fill:#d5f5d5,stroke:#2b7a2b\n\
            \x20 classDef prepared fill:#dce8fb,stroke:#2b4f7a\n\
            \x20 classDef old fill:#eeeeee,stroke:#888888\n\
            \x20 classDef tainted fill:#fbdcdc,stroke:#a02020\n"
}

fn class(look: Look) -> &'static str {
    match look {
        Look::Plain => "",
        Look::Active => ":::active",
        Look::Prepared => ":::prepared",
        Look::Old => ":::old",
        Look::Tainted => ":::tainted",
    }
}

/// Letters that would end a label or begin a tag. Mermaid writes them as `#` with a name.
fn escape(line: &str) -> String {
    line.replace('#', "#35;").replace('"', "#quot;").replace('<', "#lt;").replace('>', "#gt;")
}

#[cfg(test)]
mod tests {
    use super::super::tree::tests::sample;
    use super::*;

    #[test]
    fn each_box_hangs_below_the_one_that_signed_it() {
        let text = draw(&sample());
        assert!(text.starts_with("flowchart TD\n  n0[\"Trust domain example.org\"]\n  n1[\"Root<br/>ID: new<br/>Subject: CN=#lt;new#gt;<br/>"), "{text}");
        let arrows: Vec<_> = text.lines().filter(|line| line.contains("-->")).collect();
        let expected = [
            "  n0 --> n1",
            "  n1 --> n2",
            "  n2 --> n3",
            "  n0 --> n4",
            "  n4 --> n5",
            "  n5 --> n6",
            "  n0 --> n7",
            "  n7 --> n8",
            "  n7 --> n9",
        ];
        assert_eq!(arrows, expected);
        assert!(text.contains("(active)<br/>ID: own") && text.contains(":::tainted\n"), "{text}");
    }
}
