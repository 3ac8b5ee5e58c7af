//! The XDP object that the build script compiled, embedded.

use super::load::LoadError;

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("WEIR_XDP_OBJECT"));

/// The object's bytes, aligned as aya wants them.
///
/// # Errors
/// [`LoadError::NotBuiltIn`] if this binary was built with `WEIR_EBPF=none`.
pub(crate) fn object() -> Result<&'static [u8], LoadError> {
    if OBJECT.is_empty() { Err(LoadError::NotBuiltIn) } else { Ok(OBJECT) }
}
