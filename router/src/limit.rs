//! Rate limits: RateLimitPolicy, compiled.
//!
//! 1. [`rule`] is one limit: which requests it counts, and by what key.
//! 2. [`local`] counts in this process, for all of its workers.
//! 3. [`store`] asks Redis, where all routers count together; [`resp`] is what
//!    is spoken there.
//! 4. [`quota`] is what clients are told of it.
//! 5. [`compile`] keeps counts from one table to the next.
//!
//! The step that asks is `request/limit.rs`.

pub mod compile;
pub mod local;
pub mod quota;
pub mod resp;
pub mod rule;
pub mod store;

pub use compile::Compiler;
pub use rule::Attachment;
