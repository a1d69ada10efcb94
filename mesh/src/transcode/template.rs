//! Path templates: the grammar of `google.api.HttpRule`.
//!
//! ```text
//! Template = "/" Segments [ Verb ] ;
//! Segments = Segment { "/" Segment } ;
//! Segment  = "*" | "**" | LITERAL | Variable ;
//! Variable = "{" FieldPath [ "=" Segments ] "}" ;
//! Verb     = ":" LITERAL ;
//! ```

/// Why a text is no path template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Templates are absolute.
    #[error("does not begin with '/'")]
    Relative,
    /// `//`, or `{a=}`.
    #[error("has an empty segment")]
    EmptySegment,
    /// Variables do not nest and must be closed.
    #[error("has an unbalanced '{{' or '}}'")]
    Braces,
    /// `{}` or `{=x}`.
    #[error("has a variable without a field")]
    NoField,
    /// Nothing can follow it but a verb.
    #[error("has '**' elsewhere than at the end")]
    RestNotLast,
    /// A colon with nothing, or something else than a literal, behind it.
    #[error("has a verb that is no literal")]
    Verb,
    /// A field can only have one value.
    #[error("binds {0:?} twice")]
    Twice(String),
}

/// What one segment of a path must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    Literal(Box<str>),
    One,
    Rest,
}

/// Segments that give a field its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Variable {
    /// Dotted path of the field, as in the template.
    pub field: String,
    /// First segment.
    pub start: usize,
    /// Behind the last; none for `**`.
    pub end: Option<usize>,
}

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    pub source: String,
    pub segments: Vec<Segment>,
    pub verb: Option<Box<str>>,
    pub variables: Vec<Variable>,
}

impl Variable {
    /// Whether it stands for more than one segment, which changes how its value
    /// is percent-decoded.
    pub fn is_multi(&self) -> bool {
        self.end.is_none_or(|end| end - self.start > 1)
    }
}

impl Template {
    pub fn parse(source: &str) -> Result<Self, TemplateError> {
        let rest = source.strip_prefix('/').ok_or(TemplateError::Relative)?;
        // A colon may only stand in front of the verb.
        let (path, verb) = match rest.rfind(':') {
            Some(at) if !rest[at..].contains('}') => {
                let verb = &rest[at + 1..];
                if verb.is_empty() || verb.contains(['/', '*', '{']) {
                    return Err(TemplateError::Verb);
                }
                (&rest[..at], Some(verb.into()))
            }
            _ => (rest, None),
        };
        let mut template =
            Self { source: source.to_owned(), segments: Vec::new(), verb, variables: Vec::new() };
        let mut left = path;
        while !left.is_empty() {
            left = template.piece(left)?;
        }
        if path.ends_with('/') {
            return Err(TemplateError::EmptySegment);
        }
        let last = template.segments.len().saturating_sub(1);
        if template.segments[..last].contains(&Segment::Rest) {
            return Err(TemplateError::RestNotLast);
        }
        Ok(template)
    }

    /// Reads one segment or variable; gives what follows its slash.
    fn piece<'a>(&mut self, left: &'a str) -> Result<&'a str, TemplateError> {
        let Some(inner) = left.strip_prefix('{') else {
            let (segment, after) = left.split_once('/').unwrap_or((left, ""));
            self.segment(segment)?;
            return Ok(after);
        };
        let (inner, after) = inner.split_once('}').ok_or(TemplateError::Braces)?;
        let (field, pattern) = inner.split_once('=').unwrap_or((inner, "*"));
        if field.is_empty() || field.split('.').any(str::is_empty) {
            return Err(TemplateError::NoField);
        }
        if self.variables.iter().any(|v| v.field == field) {
            return Err(TemplateError::Twice(field.to_owned()));
        }
        let start = self.segments.len();
        for segment in pattern.split('/') {
            self.segment(segment)?;
        }
        let rest = self.segments.last() == Some(&Segment::Rest);
        let end = if rest { None } else { Some(self.segments.len()) };
        self.variables.push(Variable { field: field.to_owned(), start, end });
        match after.strip_prefix('/') {
            Some(after) => Ok(after),
            None if after.is_empty() => Ok(after),
            None => Err(TemplateError::Braces),
        }
    }

    fn segment(&mut self, text: &str) -> Result<(), TemplateError> {
        self.segments.push(match text {
            "" => return Err(TemplateError::EmptySegment),
            "*" => Segment::One,
            "**" => Segment::Rest,
            _ if text.contains(['{', '}']) => return Err(TemplateError::Braces),
            _ => Segment::Literal(text.into()),
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar() {
        let template = Template::parse("/v1/{name=shelves/*/books/*}:read").unwrap();
        assert_eq!(template.segments.len(), 5);
        assert_eq!(template.verb.as_deref(), Some("read"));
        assert_eq!(template.variables[0].field, "name");
        assert_eq!((template.variables[0].start, template.variables[0].end), (1, Some(5)));

        let template = Template::parse("/v1/{a.b}/{rest=files/**}").unwrap();
        assert_eq!(template.variables[0].field, "a.b");
        assert!(!template.variables[0].is_multi());
        assert_eq!(template.variables[1].end, None);

        assert_eq!(Template::parse("/").unwrap().segments, []);
    }

    #[test]
    fn what_is_outside_the_grammar_is_refused() {
        use TemplateError as E;
        for (text, error) in [
            ("v1", E::Relative),
            ("", E::Relative),
            ("/v1//x", E::EmptySegment),
            ("/v1/", E::EmptySegment),
            ("/{a=}", E::EmptySegment),
            ("/{a", E::Braces),
            ("/a}", E::Braces),
            ("/{a}b", E::Braces),
            ("/{a={b}}", E::Braces),
            ("/{}", E::NoField),
            ("/{a..b}", E::NoField),
            ("/**/a", E::RestNotLast),
            ("/{a=**}/b", E::RestNotLast),
            ("/a:", E::Verb),
            ("/a:b/c", E::Verb),
            ("/{a}/{a}", E::Twice("a".into())),
        ] {
            assert_eq!(Template::parse(text), Err(error), "{text}");
        }
    }
}
