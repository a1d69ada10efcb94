//! One form for each path, so that routes, policies and upstreams all mean the
//! same by it.
//!
//! Unreserved escapes are decoded and others upper-cased (RFC 3986 §6.2.2),
//! bytes that a path cannot have are escaped, runs of `/` become one, and dot
//! segments go (RFC 3986 §5.2.4). What servers are known to read in two ways is
//! refused: escaped slashes, backslashes, control bytes and dot segments with
//! parameters.

use std::fmt;

/// What becomes of an escaped slash (`%2F`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Slashes {
    /// The path is refused.
    #[default]
    Reject,
    /// It stays escaped: a byte of its segment.
    Keep,
}

impl fmt::Display for Slashes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reject => "Reject",
            Self::Keep => "Keep",
        })
    }
}

/// Why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not begin with a slash.
    #[error("the path does not begin with '/'")]
    Relative,
    /// `%2F`.
    #[error(
        "the path has an escaped slash (%2F), which servers read in two ways; send '/', or set \
         path.escapedSlashes to Keep"
    )]
    EscapedSlash,
    /// A backslash, escaped or not.
    #[error("the path has a backslash, which some servers read as '/'; send '/'")]
    Backslash,
    /// A control byte, escaped or not.
    #[error("the path has a control byte")]
    Control,
    /// `..;`, `.;`, or `..` beside an escaped slash.
    #[error(
        "the path has a dot segment with parameters or beside an escaped slash, which servers \
         read in two ways"
    )]
    OddDots,
    /// A `%` without two hexadecimal digits.
    #[error("the path has a '%' that no two hexadecimal digits follow; send %25 for the sign")]
    Escape,
    /// A `#`, which is for clients only.
    #[error("the path has a fragment ('#'), which a client keeps to itself; send %23 for the sign")]
    Fragment,
}

/// What a byte of a path makes necessary.
const PLAIN: u8 = 0;
/// A slash or a dot: it matters after a slash.
const SEGMENT: u8 = 1;
const OTHER: u8 = 2;

static CLASS: [u8; 256] = {
    let mut class = [OTHER; 256];
    let mut byte = 0;
    while byte < 256 {
        if is_path_byte(byte as u8) {
            class[byte] = PLAIN;
        }
        byte += 1;
    }
    class[b'/' as usize] = SEGMENT;
    class[b'.' as usize] = SEGMENT;
    class
};

/// RFC 3986 §3.3 `pchar`, but for `%`.
const fn is_path_byte(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(
            byte,
            b'!' | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
                | b':'
                | b'@'
        )
}

/// RFC 3986 §2.3.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// The canonical form of a path without query; none when it has it already.
///
/// # Errors
/// [`PathError`], when servers would not agree on what is meant.
#[inline]
pub fn path(path: &str, slashes: Slashes) -> Result<Option<String>, PathError> {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(PathError::Relative);
    }
    for (at, byte) in bytes.iter().enumerate() {
        let class = CLASS[usize::from(*byte)];
        if class == PLAIN {
            continue;
        }
        // After a slash, another one and a dot need a closer look.
        if class == OTHER || (at > 0 && bytes[at - 1] == b'/') {
            return rewrite(path, slashes).map(|new| (new != path).then_some(new));
        }
    }
    Ok(None)
}

fn rewrite(path: &str, slashes: Slashes) -> Result<String, PathError> {
    let decoded = decode(path.as_bytes(), slashes)?;
    let mut out: Vec<&str> = Vec::new();
    let mut ends_in_directory = false;
    // The first is what is before the leading slash: nothing.
    for segment in decoded.split('/').skip(1) {
        ends_in_directory = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => drop(out.pop()),
            _ if has_odd_dots(segment) => return Err(PathError::OddDots),
            _ => out.push(segment),
        }
    }
    let mut text = String::with_capacity(decoded.len());
    for segment in &out {
        text.push('/');
        text.push_str(segment);
    }
    if ends_in_directory || text.is_empty() {
        text.push('/');
    }
    Ok(text)
}

/// Decodes what is unreserved, and escapes what no path has.
fn decode(bytes: &[u8], slashes: Slashes) -> Result<String, PathError> {
    let mut out = String::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        let (value, escaped) = match byte {
            b'%' => {
                let high = bytes.get(at).and_then(|b| hex(*b));
                let low = bytes.get(at + 1).and_then(|b| hex(*b));
                let (Some(high), Some(low)) = (high, low) else { return Err(PathError::Escape) };
                at += 2;
                (high << 4 | low, true)
            }
            byte => (byte, false),
        };
        match value {
            0..=0x1f | 0x7f => return Err(PathError::Control),
            b'\\' => return Err(PathError::Backslash),
            b'/' if escaped && slashes == Slashes::Reject => return Err(PathError::EscapedSlash),
            b'#' if !escaped => return Err(PathError::Fragment),
            b'/' if !escaped => out.push('/'),
            value if is_unreserved(value) || (!escaped && is_path_byte(value)) => {
                out.push(char::from(value));
            }
            value => {
                out.push('%');
                out.push(HEX[usize::from(value >> 4)]);
                out.push(HEX[usize::from(value & 15)]);
            }
        }
    }
    Ok(out)
}

const HEX: [char; 16] =
    ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// `.;x`, `..;x` and `a%2F..`, which some servers take for dot segments.
fn has_odd_dots(segment: &str) -> bool {
    if segment.contains("%2F") {
        return segment.split("%2F").any(|part| matches!(part, "." | "..") || has_odd_dots(part));
    }
    let rest = segment.trim_start_matches('.');
    (1..=2).contains(&(segment.len() - rest.len()))
        && (rest.starts_with(';') || rest.starts_with("%3B"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Result<String, PathError> {
        path(text, Slashes::Reject).map(|new| new.unwrap_or_else(|| text.to_owned()))
    }

    #[test]
    fn every_spelling_becomes_one() {
        for (text, form) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/%61/b", "/a/b"),
            ("//a///b//", "/a/b/"),
            ("/a/./b/../c", "/a/c"),
            ("/a//../b", "/b"),
            ("/a/%2e%2E/b", "/b"),
            ("/../../a", "/a"),
            ("/a/..", "/"),
            ("/a/.", "/a/"),
            ("/a%3ab%c3%a9", "/a%3Ab%C3%A9"),
            ("/a\u{e9}{}", "/a%C3%A9%7B%7D"),
            ("/a%252F", "/a%252F"),
            ("/.well-known/jwks.json", "/.well-known/jwks.json"),
            ("/...;/x", "/...;/x"),
            ("/a;b/c=d", "/a;b/c=d"),
        ] {
            assert_eq!(of(text).as_deref(), Ok(form), "{text}");
        }
        assert_eq!(path("/a/.b/c", Slashes::Reject), Ok(None));
        assert_eq!(path("/a%2fb", Slashes::Keep), Ok(Some("/a%2Fb".to_owned())));
        assert_eq!(path("/a%2Fb..", Slashes::Keep), Ok(None));
        assert_eq!(path("/a%2F..%2Fb", Slashes::Keep), Err(PathError::OddDots));
    }

    #[test]
    fn what_servers_read_in_two_ways_is_refused() {
        use PathError as E;
        for (text, error) in [
            ("", E::Relative),
            ("a", E::Relative),
            ("*", E::Relative),
            ("/a%2fb", E::EscapedSlash),
            ("/a%2Fb", E::EscapedSlash),
            ("/a%5cb", E::Backslash),
            ("/a\\b", E::Backslash),
            ("/a%00", E::Control),
            ("/a%0d%0a", E::Control),
            ("/a\u{7f}", E::Control),
            ("/a/..;/b", E::OddDots),
            ("/a/.;x=y/b", E::OddDots),
            ("/a/%2e%2e%3b/b", E::OddDots),
            ("/a%", E::Escape),
            ("/a%2", E::Escape),
            ("/a%zz", E::Escape),
            ("/a%+1", E::Escape),
            ("/a#b", E::Fragment),
        ] {
            assert_eq!(of(text), Err(error), "{text}");
        }
    }

    /// One spelling of a canonical path, by choices.
    fn spell(form: &str, choices: &[u8]) -> String {
        let mut out = String::new();
        let mut choice = choices.iter().cycle();
        let mut next = || *choice.next().unwrap_or(&0);
        let bytes = form.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let byte = bytes[at];
            match (byte, next() % 5) {
                (b'/', 0) => out.push_str("//"),
                (b'/', 1) => out.push_str("/./"),
                (b'/', 2) => out.push_str("/x%79/%2E./"),
                (b'/', 3) => out.push_str("/%2e/"),
                (b'%', even) => {
                    let escape = &form[at..at + 3];
                    out.push_str(&if even % 2 == 0 {
                        escape.to_ascii_lowercase()
                    } else {
                        escape.to_owned()
                    });
                    at += 2;
                }
                (byte, 0 | 1) if is_unreserved(byte) => out.push_str(&format!("%{byte:02x}")),
                (byte, 2) if is_unreserved(byte) => out.push_str(&format!("%{byte:02X}")),
                (byte, _) => out.push(char::from(byte)),
            }
            at += 1;
        }
        out
    }

    proptest! {
        #[test]
        fn it_is_idempotent_and_has_no_dot_segment(
            text in "/([a-c.;/\\\\%]|%2e|%2E|%2f|%5c|%3b|%41|\\PC){0,24}", keep: bool,
        ) {
            let slashes = if keep { Slashes::Keep } else { Slashes::Reject };
            if let Ok(new) = path(&text, slashes) {
                let form = new.unwrap_or(text);
                prop_assert_eq!(path(&form, slashes), Ok(None), "{}", form);
                prop_assert!(!form.contains("//") && !form.contains('\\'));
                for segment in form.split('/') {
                    prop_assert!(segment != "." && segment != "..", "{}", form);
                    prop_assert!(!segment.starts_with("..;") && !segment.starts_with(".;"));
                }
                prop_assert!(keep || !form.contains("%2F"));
            }
        }

        #[test]
        fn any_spelling_gives_the_same_form(
            text in "(/([a-z.~!]|%C3|%3A|%25){1,6}){1,5}/?", choices in proptest::collection::vec(0u8..5, 1..40),
        ) {
            if let Ok(new) = path(&text, Slashes::Reject) {
                let form = new.unwrap_or(text);
                prop_assert_eq!(of(&spell(&form, &choices)), Ok(form));
            }
        }
    }
}
