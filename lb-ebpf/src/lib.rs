//! Empty: lets a build script depend on this package, whose programs are binaries for the kernel.
#![no_std]
