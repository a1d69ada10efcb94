//! Fixtures, and what they come to.
