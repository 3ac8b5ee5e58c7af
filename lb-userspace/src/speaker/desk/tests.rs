//! What the desk has done on each event.
