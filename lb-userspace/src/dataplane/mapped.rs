//! An mmap-able array in the daemon's memory: records of `T` that the kernel reads or writes meanwhile, word by word.
#![allow(unsafe_code, reason = "one view over mapped memory")]

use std::{
    marker::PhantomData,
    os::fd::{AsFd as _, AsRawFd as _},
    slice,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::maps::{MapData, MapError};
use bytemuck::Pod;
use memmap2::{MmapOptions, MmapRaw};

const WORD_BYTES: usize = size_of::<u64>();
const PAGE_BYTES: usize = 4096;

/// Whether tables are only looked at or also changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Any number of readers.
    ReadOnly,
    /// The daemon.
    ReadWrite,
}

/// Why a map could not be mapped.
#[derive(Debug, thiserror::Error)]
pub enum MapOpenError {
    /// Its values are not of the expected size.
    #[error("map {name} holds values of {found} bytes, not {expected}")]
    Shape {
        /// The map.
        name: &'static str,
        /// What the kernel says, bytes.
        found: u32,
        /// What this build expects, bytes.
        expected: u32,
    },
    /// The kernel refused to map it.
    #[error("failed to map {name} into memory")]
    Mmap {
        /// The map.
        name: &'static str,
        /// The refusal.
        source: std::io::Error,
    },
    /// The kernel refused to describe it.
    #[error("failed to look at map {name}")]
    Info {
        /// The map.
        name: &'static str,
        /// The refusal.
        source: MapError,
    },
}

/// Why a record could not be read or written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AccessError {
    /// The table is not that long.
    #[error("entry {index} is beyond the {len} entries of {name}")]
    OutOfRange {
        /// The map.
        name: &'static str,
        /// The entry asked for.
        index: u32,
        /// How many there are.
        len: u32,
    },
    /// The table was opened for looking only.
    #[error("{name} is open for reading only")]
    ReadOnly {
        /// The map.
        name: &'static str,
    },
}

/// A mapped array of `T`.
///
/// `T` is made of whole 64-bit words. Each word is read by one load and written by one store; a record that changes meanwhile may be seen half
/// old, half new.
#[derive(Debug)]
pub struct Mapped<T> {
    name: &'static str,
    memory: MmapRaw,
    len: u32,
    access: Access,
    record: PhantomData<T>,
}

impl<T: Pod> Mapped<T> {
    const WORDS: usize = {
        assert!(size_of::<T>().is_multiple_of(WORD_BYTES));
        size_of::<T>() / WORD_BYTES
    };

    /// Maps `map`, whose name in messages is `name`.
    ///
    /// # Errors
    /// [`MapOpenError`] if its values are not `T`s or the kernel refuses.
    pub(crate) fn open(name: &'static str, map: &MapData, access: Access) -> Result<Self, MapOpenError> {
        let info = map.info().map_err(|source| MapOpenError::Info { name, source })?;
        if info.value_size() as usize != size_of::<T>() {
            return Err(MapOpenError::Shape { name, found: info.value_size(), expected: size_of::<T>() as u32 });
        }
        let len = info.max_entries();
        let bytes = (len as usize * size_of::<T>()).next_multiple_of(PAGE_BYTES);
        let mut options = MmapOptions::new();
        options.len(bytes);
        let fd = map.fd().as_fd().as_raw_fd();
        let memory = match access {
            Access::ReadOnly => options.map_raw_read_only(fd),
            Access::ReadWrite => options.map_raw(fd),
        };
        let memory = memory.map_err(|source| MapOpenError::Mmap { name, source })?;
        Ok(Self { name, memory, len, access, record: PhantomData })
    }

    /// Number of records.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there is no record; the kernel makes no such map.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A copy of the record, read word by word.
    ///
    /// # Errors
    /// [`AccessError::OutOfRange`].
    pub fn record(&self, index: u32) -> Result<T, AccessError> {
        let mut record = T::zeroed();
        for (bytes, word) in bytemuck::bytes_of_mut(&mut record).chunks_exact_mut(WORD_BYTES).zip(self.words(index)?) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        Ok(record)
    }

    /// The record's word at `offset_words`, by one load.
    ///
    /// # Errors
    /// [`AccessError::OutOfRange`].
    pub fn word(&self, index: u32, offset_words: usize) -> Result<u64, AccessError> {
        Ok(self.atomic(index, offset_words)?.load(Ordering::Acquire))
    }

    /// Writes the record: each word that differs by one store, in order of their offsets.
    ///
    /// # Errors
    /// [`AccessError`].
    pub(crate) fn write(&self, index: u32, record: &T) -> Result<(), AccessError> {
        self.write_words(index, bytemuck::bytes_of(record))
    }

    /// Writes the first words of the record, from `bytes`; the rest stays.
    pub(crate) fn write_words(&self, index: u32, bytes: &[u8]) -> Result<(), AccessError> {
        self.writable()?;
        for (bytes, word) in bytes.chunks_exact(WORD_BYTES).zip(self.words(index)?) {
            let value = u64::from_ne_bytes(bytemuck::pod_read_unaligned(bytes));
            if word.load(Ordering::Relaxed) != value {
                word.store(value, Ordering::Relaxed);
            }
        }
        // What is published next must not be seen before the record.
        std::sync::atomic::fence(Ordering::Release);
        Ok(())
    }

    /// Writes one word by one store, after everything written before.
    pub(crate) fn store_word(&self, index: u32, offset_words: usize, value: u64) -> Result<(), AccessError> {
        self.writable()?;
        self.atomic(index, offset_words)?.store(value, Ordering::Release);
        Ok(())
    }

    /// Replaces a word if it is `old`; else returns what it is.
    pub(crate) fn replace_word(&self, index: u32, offset_words: usize, old: u64, new: u64) -> Result<Result<(), u64>, AccessError> {
        self.writable()?;
        let exchanged = self.atomic(index, offset_words)?.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire);
        Ok(exchanged.map(|_| ()))
    }

    /// Changes a word by compare-and-swap until `change` of it holds, or leaves it where `change` gives none.
    pub(crate) fn update_word(
        &self,
        index: u32,
        offset_words: usize,
        mut change: impl FnMut(u64) -> Option<u64>,
    ) -> Result<(), AccessError> {
        let mut old = self.word(index, offset_words)?;
        while let Some(new) = change(old).filter(|&new| new != old) {
            match self.replace_word(index, offset_words, old, new)? {
                Ok(()) => break,
                Err(seen) => old = seen,
            }
        }
        Ok(())
    }

    fn writable(&self) -> Result<(), AccessError> {
        match self.access {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly => Err(AccessError::ReadOnly { name: self.name }),
        }
    }

    fn atomic(&self, index: u32, offset_words: usize) -> Result<&AtomicU64, AccessError> {
        self.words(index)?.get(offset_words).ok_or(AccessError::OutOfRange {
            name: self.name,
            index: offset_words as u32,
            len: Self::WORDS as u32,
        })
    }

    fn words(&self, index: u32) -> Result<&[AtomicU64], AccessError> {
        let first = index as usize * Self::WORDS;
        let words = self.all_words().get(first..first + Self::WORDS);
        words.ok_or(AccessError::OutOfRange { name: self.name, index, len: self.len })
    }

    fn all_words(&self) -> &[AtomicU64] {
        // SAFETY: `open` mapped at least `len` records, page-aligned, for as long as `memory` lives; an AtomicU64 is a u64 in memory, and only
        // writers that checked `access` store through it.
        unsafe { slice::from_raw_parts(self.memory.as_ptr().cast(), self.len as usize * Self::WORDS) }
    }
}
