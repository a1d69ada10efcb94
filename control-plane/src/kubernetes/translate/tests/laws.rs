//! What holds for all objects.
