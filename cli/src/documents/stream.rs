//! A text of several YAML documents, each read by itself: so a mistake in the
//! form of one hides no mistake of another.

use crate::mesh_file::tree::{Node, Place, Value};

/// Why a document cannot be read, and where.
type Unreadable = (Option<Place>, String);

/// The documents of a text (YAML 1.2 §9.2), empty ones left out.
pub fn documents(text: &str) -> Vec<Result<Node, Unreadable>> {
    with_text(text).into_iter().map(|(_, read)| read).collect()
}

/// The same, each with its own text.
pub fn with_text(text: &str) -> Vec<(String, Result<Node, Unreadable>)> {
    let read = |(line, part): (u64, String)| match Node::parse(&part) {
        Ok(node) if node.value == Value::Null => None,
        Ok(node) => Some((part, Ok(node.moved_down(line)))),
        Err((place, why)) => Some((part, Err((place.map(|place| place.moved_down(line)), why)))),
    };
    parts(text).into_iter().filter_map(read).collect()
}

/// Each part with the number of lines before it. A marker begins a line and
/// cannot be part of a scalar, not even of a block's.
fn parts(text: &str) -> Vec<(u64, String)> {
    let mut parts = vec![(0, String::new())];
    for (number, line) in (0_u64..).zip(text.split_inclusive('\n')) {
        let (marker, rest) = match line.get(..3) {
            Some(marker @ ("---" | "...")) if begins(&line[3..]) => (Some(marker), &line[3..]),
            _ => (None, line),
        };
        match marker {
            // A document may begin on its marker's line; its columns stay.
            Some("---") => parts.push((number, format!("   {rest}"))),
            Some(_) => parts.push((number, "\n".to_owned())),
            None => {
                if let Some((_, part)) = parts.last_mut() {
                    part.push_str(rest);
                }
            }
        }
    }
    // Directives and comments alone are no document.
    parts.retain(|(_, part)| {
        part.lines().any(|line| !matches!(line.trim_start().chars().next(), None | Some('#' | '%')))
    });
    parts
}

fn begins(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_the_file() {
        let text =
            "# first\n---\na: 1\n--- {b: 2}\n...\n---\n\n# nothing\n---\nc: [\n---\nd:\n  e: 3\n";
        let found: Vec<_> = documents(text)
            .into_iter()
            .map(|document| match document {
                Ok(node) => node.to_json().to_string() + " " + &node.place.to_string(),
                Err((place, _)) => format!("wrong at {}", place.map_or(0, |place| place.line)),
            })
            .collect();
        assert_eq!(found.len(), 4, "{found:?}");
        assert_eq!(found[0], r#"{"a":1} 3:1"#);
        assert_eq!(found[1], r#"{"b":2} 4:5"#);
        assert!(matches!(found[2].as_str(), "wrong at 10" | "wrong at 11"), "{}", found[2]);
        assert_eq!(found[3], r#"{"d":{"e":3}} 12:1"#);
    }

    #[test]
    fn a_scalar_that_only_looks_like_a_marker_is_none() {
        let nodes = documents("a: |\n  ---\n  text\nb: ---x\n");
        assert_eq!(nodes.len(), 1);
        assert!(nodes[0].is_ok(), "{nodes:?}");
    }

    #[test]
    fn json_is_yaml() {
        let node = documents("{\n\t\"a\": [1, \"yes\"]\n}\n").remove(0).unwrap();
        assert_eq!(node.to_json(), serde_json::json!({"a": [1, "yes"]}));
    }
}
