//! From method and path to a binding: a tree of path segments.

use std::borrow::Cow;
use std::collections::HashMap;

use http::Method;

use super::template::{Segment, Template};
use super::text::percent_decode;

/// The tree's root.
#[derive(Default)]
pub(super) struct Table {
    root: Node,
}

#[derive(Default)]
struct Node {
    literals: HashMap<Box<str>, Node>,
    one: Option<Box<Node>>,
    /// Templates that end here.
    leaves: Vec<Leaf>,
    /// Templates that end here in `**`.
    rest: Vec<Leaf>,
}

struct Leaf {
    verb: Option<Box<str>>,
    /// None: any.
    method: Option<Method>,
    binding: usize,
}

/// What was found, with the segments that the template's are to be read from.
pub(super) enum Match<'a> {
    Found(usize, Vec<&'a str>),
    MethodNotAllowed(Vec<Method>),
    NotFound,
}

/// One look through the tree.
struct Search<'a> {
    segments: &'a [&'a str],
    verb: Option<&'a str>,
    method: &'a Method,
    allowed: Vec<Method>,
}

impl Table {
    /// # Errors
    /// The binding that has the same template, verb and method.
    pub fn insert(
        &mut self,
        template: &Template,
        method: Option<Method>,
        binding: usize,
    ) -> Result<(), usize> {
        let mut node = &mut self.root;
        let mut rest = false;
        for segment in &template.segments {
            match segment {
                Segment::Literal(text) => node = node.literals.entry(text.clone()).or_default(),
                Segment::One => node = node.one.get_or_insert_default(),
                Segment::Rest => rest = true,
            }
        }
        let leaves = if rest { &mut node.rest } else { &mut node.leaves };
        let taken = leaves.iter().find(|l| l.verb == template.verb && l.method == method);
        if let Some(leaf) = taken {
            return Err(leaf.binding);
        }
        leaves.push(Leaf { verb: template.verb.clone(), method, binding });
        Ok(())
    }

    pub fn find<'a>(&self, method: &Method, path: &'a str) -> Match<'a> {
        let Some(path) = path.strip_prefix('/') else { return Match::NotFound };
        let mut segments: Vec<&str> = path.split('/').collect();
        if path.is_empty() {
            segments.clear();
        }
        let mut allowed = Vec::new();
        // What follows the last colon is a verb if any template says so, else
        // part of the last segment.
        if let Some((head, verb)) = segments.last().and_then(|last| last.rsplit_once(':')) {
            let whole = segments.pop();
            segments.push(head);
            let mut search = Search { segments: &segments, verb: Some(verb), method, allowed };
            let found = search.walk(&self.root, 0);
            allowed = search.allowed;
            if let Some(binding) = found {
                return Match::Found(binding, segments);
            }
            segments.pop();
            segments.extend(whole);
        }
        let mut search = Search { segments: &segments, verb: None, method, allowed };
        let found = search.walk(&self.root, 0);
        let allowed = search.allowed;
        match found {
            Some(binding) => Match::Found(binding, segments),
            None if allowed.is_empty() => Match::NotFound,
            None => Match::MethodNotAllowed(allowed),
        }
    }
}

impl Search<'_> {
    /// Depth first, the most exact first. Each node is visited at most once, as
    /// only one path leads to it.
    fn walk(&mut self, node: &Node, depth: usize) -> Option<usize> {
        let Some(segment) = self.segments.get(depth) else {
            return self.pick(&node.leaves).or_else(|| self.pick(&node.rest));
        };
        if let Some(decoded) = literal(segment)
            && let Some(next) = node.literals.get(&*decoded)
            && let Some(found) = self.walk(next, depth + 1)
        {
            return Some(found);
        }
        if let Some(next) = &node.one
            && !segment.is_empty()
            && let Some(found) = self.walk(next, depth + 1)
        {
            return Some(found);
        }
        self.pick(&node.rest)
    }

    fn pick(&mut self, leaves: &[Leaf]) -> Option<usize> {
        let serves = |wanted: &Method| {
            leaves
                .iter()
                .filter(|leaf| leaf.verb.as_deref() == self.verb)
                .find(|leaf| leaf.method.as_ref().is_none_or(|m| m == wanted))
                .map(|leaf| leaf.binding)
        };
        let found = serves(self.method);
        let found = match self.method {
            &Method::HEAD => found.or_else(|| serves(&Method::GET)),
            _ => found,
        };
        if found.is_none() {
            let methods = leaves.iter().filter(|leaf| leaf.verb.as_deref() == self.verb);
            for method in methods.filter_map(|leaf| leaf.method.as_ref()) {
                if !self.allowed.contains(method) {
                    self.allowed.push(method.clone());
                }
            }
        }
        found
    }
}

fn literal(segment: &str) -> Option<Cow<'_, str>> {
    if segment.contains('%') {
        percent_decode(segment, false, false).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(segment))
    }
}
