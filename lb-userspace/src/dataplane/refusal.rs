//! What the kernel's refusal of a program means to an operator.

use std::io;

use super::privileges_io;

/// Lines of the verifier's log that are shown: the instructions before the one it refuses, its reason, and its counts.
const LAST_LINES: usize = 12;

/// The end of a verifier's log, without empty lines; empty if the kernel did not get as far as to write one.
pub(super) fn last_words(log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}

/// The refusal in words, with the verifier's if there are any.
pub(super) fn in_words(refusal: &io::Error, log: &str) -> String {
    if log.is_empty() { refusal.to_string() } else { format!("{refusal}; the verifier's last words:\n{log}") }
}

/// What can be done about a refusal (linux kernel/bpf/syscall.c, `bpf_prog_load`, and kernel/bpf/verifier.c, `bpf_check`).
pub(super) fn hint(refusal: &io::Error, log: &str) -> &'static str {
    match refusal.raw_os_error() {
        Some(libc::E2BIG) => {
            "the program is too large for this kernel's verifier: a newer kernel takes larger ones, and a configuration without NAT, IPv6, \
             source rules or conn_rate makes a smaller one"
        }
        Some(libc::EPERM) => privileges_io::HINT,
        // The verifier checks more strictly what a process without CAP_PERFMON loads (linux kernel/bpf/verifier.c, `allow_ptr_leaks`).
        Some(libc::EACCES) if log.contains("prohibited for !root") => {
            "CAP_PERFMON is missing: run as root, or with CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, CAP_SYS_ADMIN and CAP_NET_RAW"
        }
        Some(libc::ENOSPC) => {
            "the verifier's log did not fit its buffer, so the reason is not known: please report this, with the kernel's version"
        }
        Some(libc::EAGAIN) => "signals interrupted the verifier each time: try again",
        Some(libc::ENOMEM) => "the kernel has too little memory to check the program: free some, or raise the limit of the control group",
        _ => "please report this, with the kernel's version",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_log_is_shown_without_empty_lines() {
        let log: String = (1..=20).map(|line| format!("{line}: (b7) r0 = 0\n\n")).collect();
        let words = last_words(&(log + "processed 20 insns (limit 1000000)\n"));
        assert_eq!(words.lines().count(), 12);
        assert_eq!((words.lines().next(), words.lines().last()), (Some("10: (b7) r0 = 0"), Some("processed 20 insns (limit 1000000)")));
        assert_eq!(last_words("\n \n"), "");
    }

    #[test]
    fn each_refusal_that_an_operator_can_cure_has_its_hint() {
        let hint = |errno, log| hint(&io::Error::from_raw_os_error(errno), log);
        let report = hint(libc::EACCES, "R1 invalid mem access");
        assert!(
            hint(libc::EACCES, "R7 has pointer with unsupported alu operation, pointer arithmetic with it prohibited for !root")
                .contains("CAP_PERFMON")
        );
        let mut hints: Vec<&str> = [libc::E2BIG, libc::EPERM, libc::ENOSPC, libc::EAGAIN, libc::ENOMEM].map(|errno| hint(errno, "")).into();
        assert!(!hints.contains(&report));
        hints.sort_unstable();
        hints.dedup();
        assert_eq!(hints.len(), 5);
    }
}
