//! Lets any plain record be a value of an aya map.
#![allow(unsafe_code, reason = "aya's marker trait is unsafe")]

/// A record as aya takes it.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell<T>(pub(crate) T);

// SAFETY: `bytemuck::Pod` promises what `aya::Pod` asks for: any bytes are a value and none of them is padding.
unsafe impl<T: bytemuck::Pod> aya::Pod for Cell<T> {}
