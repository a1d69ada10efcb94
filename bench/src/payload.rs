//! What a body is to be.

use std::io;
use std::path::Path;

use bytes::Bytes;

use crate::pattern;

/// Contents of a body, known before it is sent or received.
pub enum Payload {
    /// So many bytes of the pattern.
    Pattern(u64),
    /// The bytes of a file.
    File(Bytes),
}

impl Payload {
    /// A file's contents; the error names `flag` and the file.
    pub fn load(flag: &str, path: &Path) -> Result<Self, String> {
        let contents = std::fs::read(path);
        let contents =
            contents.map_err(|e: io::Error| format!("{flag} {}: {e}", path.display()))?;
        Ok(Self::File(contents.into()))
    }

    /// In bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Pattern(length) => *length,
            Self::File(contents) => contents.len() as u64,
        }
    }

    /// Whether `bytes` may stand at byte `offset`.
    pub fn matches(&self, offset: u64, bytes: &[u8]) -> bool {
        match self {
            Self::Pattern(length) => {
                offset + bytes.len() as u64 <= *length && pattern::matches(offset, bytes)
            }
            Self::File(contents) => {
                let rest = usize::try_from(offset).ok().and_then(|offset| contents.get(offset..));
                rest.is_some_and(|rest| rest.starts_with(bytes))
            }
        }
    }

    /// A piece of at most `most` bytes that starts at byte `offset`; empty at
    /// the end.
    pub fn piece(&self, offset: u64, most: u64) -> Bytes {
        let most = most.min(self.len().saturating_sub(offset));
        match self {
            Self::Pattern(_) => Bytes::from_static(pattern::from(offset, most)),
            // Within a file that is in memory, so both fit.
            Self::File(contents) => contents.slice(offset as usize..(offset + most) as usize),
        }
    }
}
