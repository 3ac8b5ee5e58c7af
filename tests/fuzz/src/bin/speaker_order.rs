//! Lines between the daemon and the speaker: what is understood is one line again, and the same when that is read.
#![no_main]

use std::fmt::Debug;

use lb_userspace::speaker::order::{Said, Told};
use libfuzzer_sys::fuzz_target;
use serde::{Serialize, de::DeserializeOwned};

fuzz_target!(|line: &[u8]| {
    comes_back::<Told>(line);
    comes_back::<Said>(line);
});

fn comes_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(line: &[u8]) {
    let Ok(meant) = serde_json::from_slice::<T>(line) else { return };
    let written = serde_json::to_string(&meant).expect("it has string keys and numbers alone");
    assert!(!written.contains('\n'), "{written}");
    assert_eq!(serde_json::from_str::<T>(&written).expect("it was written so"), meant);
}
