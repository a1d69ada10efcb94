//! What is different between two texts, line by line.

use std::fmt::Write as _;

/// Lines around a difference that are shown.
const CONTEXT: usize = 3;
/// Cells of the table of common lines; past it, all that lies between the
/// common beginning and the common end counts as replaced.
const MAX_CELLS: usize = 4_000_000;

/// One line of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line<'a> {
    Same(&'a str),
    Gone(&'a str),
    New(&'a str),
}

/// A comparison of two texts in the unified form, with `old` and `new` as names;
/// empty when they are the same.
#[must_use]
pub fn unified(old: &str, new: &str, names: (&str, &str), colours: bool) -> String {
    if old == new {
        return String::new();
    }
    let paint = |code: &str, text: &str| match colours {
        true => format!("\u{1b}[{code}m{text}\u{1b}[0m\n"),
        false => format!("{text}\n"),
    };
    let mut out = paint("1", &format!("--- {}", names.0));
    out.push_str(&paint("1", &format!("+++ {}", names.1)));
    let lines = compare(&old.lines().collect::<Vec<_>>(), &new.lines().collect::<Vec<_>>());
    for hunk in hunks(&lines) {
        out.push_str(&paint("36", &hunk.header(&lines)));
        for line in &lines[hunk.from..hunk.to] {
            match line {
                Line::Same(text) => drop(writeln!(out, " {text}")),
                Line::Gone(text) => out.push_str(&paint("31", &format!("-{text}"))),
                Line::New(text) => out.push_str(&paint("32", &format!("+{text}"))),
            }
        }
    }
    out
}

struct Hunk {
    from: usize,
    to: usize,
}

impl Hunk {
    fn header(&self, lines: &[Line<'_>]) -> String {
        let count = |lines: &[Line<'_>], other: fn(&Line<'_>) -> bool| {
            lines.iter().filter(|line| !other(line)).count()
        };
        let old = |lines: &[Line<'_>]| count(lines, |line| matches!(line, Line::New(_)));
        let new = |lines: &[Line<'_>]| count(lines, |line| matches!(line, Line::Gone(_)));
        let (before, within) = (&lines[..self.from], &lines[self.from..self.to]);
        // Of no lines, the number is that of the line before (POSIX `diff -u`).
        let range = |before: usize, count: usize| format!("{},{count}", before + count.min(1));
        format!("@@ -{} +{} @@", range(old(before), old(within)), range(new(before), new(within)))
    }
}

/// Stretches around differences.
fn hunks(lines: &[Line<'_>]) -> Vec<Hunk> {
    let mut hunks: Vec<Hunk> = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        if matches!(line, Line::Same(_)) {
            continue;
        }
        let (from, to) = (at.saturating_sub(CONTEXT), (at + CONTEXT + 1).min(lines.len()));
        match hunks.last_mut() {
            Some(last) if last.to >= from => last.to = to,
            _ => hunks.push(Hunk { from, to }),
        }
    }
    hunks
}

fn compare<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Line<'a>> {
    let start = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (&old[start..], &new[start..]);
    let end = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(a, b)| a == b).count();
    let (old_mid, new_mid) = (&old_rest[..old_rest.len() - end], &new_rest[..new_rest.len() - end]);
    let mut lines: Vec<_> = old[..start].iter().map(|line| Line::Same(line)).collect();
    middle(old_mid, new_mid, &mut lines);
    lines.extend(old[old.len() - end..].iter().map(|line| Line::Same(line)));
    lines
}

/// By the longest common subsequence.
fn middle<'a>(old: &[&'a str], new: &[&'a str], lines: &mut Vec<Line<'a>>) {
    let width = new.len() + 1;
    if (old.len() + 1).saturating_mul(width) > MAX_CELLS {
        lines.extend(old.iter().map(|line| Line::Gone(line)));
        lines.extend(new.iter().map(|line| Line::New(line)));
        return;
    }
    // `common[i * width + j]`: of old[i..] and new[j..].
    let mut common = vec![0_u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i * width + j] = if old[i] == new[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push(Line::Same(old[i]));
            (i, j) = (i + 1, j + 1);
        } else if i < old.len()
            && (j == new.len() || common[(i + 1) * width + j] >= common[i * width + j + 1])
        {
            lines.push(Line::Gone(old[i]));
            i += 1;
        } else {
            lines.push(Line::New(new[j]));
            j += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_that_of_diff() {
        let old = "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\n";
        let new = "a\nb\nc\nd\nE\nf\ng\nh\ni\nj\nk\nl\n";
        assert_eq!(
            unified(old, new, ("there", "file"), false),
            "--- there\n+++ file\n@@ -2,10 +2,11 @@\n b\n c\n d\n-e\n+E\n f\n g\n h\n i\n j\n k\n+l\n"
        );
        assert_eq!(unified("", "a\n", ("x", "y"), false), "--- x\n+++ y\n@@ -0,0 +1,1 @@\n+a\n");
        assert_eq!(unified(old, old, ("x", "y"), false), "");
        assert!(unified("a\n", "b\n", ("x", "y"), true).contains("\u{1b}[31m-a"));
    }

    #[test]
    fn both_texts_can_be_read_from_it() {
        for _ in 0..200 {
            let text = || -> Vec<&str> {
                (0..fastrand::usize(..30)).map(|_| ["a", "b", "c"][fastrand::usize(..3)]).collect()
            };
            let (old, new) = (text(), text());
            let lines = compare(&old, &new);
            let of_old = lines.iter().filter_map(|line| match line {
                Line::Same(text) | Line::Gone(text) => Some(*text),
                Line::New(_) => None,
            });
            let of_new = lines.iter().filter_map(|line| match line {
                Line::Same(text) | Line::New(text) => Some(*text),
                Line::Gone(_) => None,
            });
            assert_eq!(of_old.collect::<Vec<_>>(), old);
            assert_eq!(of_new.collect::<Vec<_>>(), new);
        }
    }
}
