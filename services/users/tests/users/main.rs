//! The users service over real connections. Only the auth service is stood in
//! for: it is nothing here but a key.

mod mesh;
mod profile;
mod watch;
