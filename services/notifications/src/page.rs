//! Pages of a list: where one ends, and the token for the next.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

/// Most items on one page.
pub const MAX_PAGE: u32 = 1000;
const DEFAULT_PAGE: u32 = 50;

/// Why a page cannot be given. The text goes on after the field's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// `pageSize` is too large.
    #[error("{0} is above {MAX_PAGE}")]
    Size(u32),
    /// `pageToken` was not made here.
    #[error("is not a token of this list; use nextPageToken as it was given, or leave it out")]
    Token,
    /// `pageToken` was made for another list.
    #[error("was given for another list or unreadOnly; keep them the same, or leave the token out")]
    OtherList,
}

/// Items to put on a page: 1 to [`MAX_PAGE`]; 0 stands for 50.
///
/// # Errors
/// Above [`MAX_PAGE`].
pub fn page_size(asked: u32) -> Result<u32, PageError> {
    match asked {
        0 => Ok(DEFAULT_PAGE),
        1..=MAX_PAGE => Ok(asked),
        _ => Err(PageError::Size(asked)),
    }
}

/// Which list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum List {
    /// Every notification.
    All,
    /// Those that are not read yet.
    Unread,
    /// Webhooks that were given up.
    Dead,
}

/// The last item of a page; the next page begins after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    #[serde(rename = "l")]
    list: List,
    /// Of the notification.
    #[serde(rename = "s")]
    pub sequence: i64,
    /// When it was given up, in microseconds since 1970; 0 in other lists.
    #[serde(rename = "t", default)]
    pub time: i64,
}

impl Cursor {
    /// A place in a list.
    #[must_use]
    pub fn new(list: List, sequence: i64, time: i64) -> Self {
        Self { list, sequence, time }
    }

    /// The token that stands for it. It shows nothing that its holder may not
    /// list anyway: lists are always the caller's own.
    #[must_use]
    pub fn token(&self) -> String {
        // A struct of numbers always serializes.
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// Reads a token; empty is none.
    ///
    /// # Errors
    /// When it was not made by [`Cursor::token`], or for another list.
    pub fn read(token: &str, list: List) -> Result<Option<Self>, PageError> {
        if token.is_empty() {
            return Ok(None);
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| PageError::Token)?;
        let cursor: Self = serde_json::from_slice(&bytes).map_err(|_| PageError::Token)?;
        if cursor.list == list { Ok(Some(cursor)) } else { Err(PageError::OtherList) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_only_for_its_own_list() {
        let cursor = Cursor::new(List::Unread, 7, 0);
        assert_eq!(Cursor::read(&cursor.token(), List::Unread), Ok(Some(cursor.clone())));
        assert_eq!(Cursor::read(&cursor.token(), List::All), Err(PageError::OtherList));
        for bad in ["x", "e30", "!!", "bnVsbA"] {
            assert_eq!(Cursor::read(bad, List::All), Err(PageError::Token), "{bad}");
        }
    }
}
