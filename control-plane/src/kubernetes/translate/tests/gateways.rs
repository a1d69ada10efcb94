//! Gateways and the routes of their listeners.
