//! The benchmarks run, each in its shortest form, and measure something. What they measure is judged by people, on a quiet machine.

use std::{
    path::PathBuf,
    process::Command,
    sync::{Mutex, PoisonError},
};

use serde_json::Value;
use weir_tests::operator::said;

/// One after another: each wants a CPU for itself.
static TURN: Mutex<()> = Mutex::new(());

/// `weir-bench` lies beside the peer.
fn bench(arguments: &[&str]) -> String {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let peer = PathBuf::from(std::env::var_os("WEIR_PEER").expect("WEIR_PEER does not name the weir-peer binary: run `cargo xtask test`"));
    let (code, text) =
        said(&Command::new(peer.with_file_name("weir-bench")).args(arguments).output().expect("weir-bench is built with the peer"));
    assert_eq!(code, Some(0), "{text}");
    text
}

/// The numbers of the line that begins so.
fn numbers(text: &str, line: &str) -> Vec<f64> {
    let found = text.lines().map(str::trim_start).find_map(|one| one.strip_prefix(line));
    let rest = found.unwrap_or_else(|| panic!("no line begins with {line:?} in {text}"));
    rest.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

#[test]
fn single_packets_are_timed() {
    let folder = std::env::temp_dir().join(format!("weir-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("l4.json");
    let text = bench(&["l4", "--rounds", "1", "--only", "GUE", "--json", file.to_str().unwrap()]);
    let [raw, no_op, _, multiple, ..] = numbers(&text, "TCP established, 1 flow")[..] else { panic!("{text}") };
    assert!(no_op > 0.0 && raw > no_op && multiple > 1.0 && multiple < 1000.0, "{text}");
    let report: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert!(report.to_string().contains("GUE"), "{report:#}");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn live_frames_are_carried_by_weir_by_the_kernel_and_by_nftables() {
    let text = bench(&["live"]);
    for carrier in ["weir, NAT, 32k flows", "kernel forwarding", "nftables DNAT and SNAT, 32k flows"] {
        let carried = numbers(&text, carrier);
        assert!(carried.len() == 2 && carried[0] > 0.0, "{text}");
    }
}

#[test]
fn changes_are_timed() {
    let text = bench(&["control", "--only", "death"]);
    let [took, ..] = numbers(&text, "a silent server: out of the slots (3 checks of 100 ms)")[..] else { panic!("{text}") };
    // Two whole intervals, of which jitter takes a little, and what is left of one.
    assert!(took > 150.0, "it cannot be known sooner: {text}");
}
