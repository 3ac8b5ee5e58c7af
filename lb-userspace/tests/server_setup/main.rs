//! Servers that are prepared for dsr, ipip and gue, against the real kernel. Needs root: the tests load programs and make network namespaces.
#![allow(missing_docs)]

mod frames;
mod opened;
