//! The names of pins. Pure.

/// The record that marks a complete set of maps.
pub(crate) const ABI: &str = "abi";
/// The packet path.
pub(crate) const PROGRAM: &str = "program";
/// The program that tells the kernel's time.
pub(crate) const CLOCK: &str = "clock";
/// A symlink to the daemon's state directory, so that whoever finds the pins finds its record.
pub(crate) const STATE: &str = "state";
/// The packet path's name in the object.
pub(crate) const PACKET_PROGRAM: &str = "weir";
/// The clock's name in the object.
pub(crate) const CLOCK_PROGRAM: &str = "weir_clock";
/// The name in the object of the program that opens tunnels.
pub(crate) const DECAP_PROGRAM: &str = "weir_decap";
/// The addresses that it opens tunnels for.
pub(crate) const DECAP_VIPS: &str = "DECAP_VIPS";
/// Its counters.
pub(crate) const DECAP_STATS: &str = "DECAP_STATS";
/// The name in the object of the program that sends probes as the data path does.
pub(crate) const WAY_OUT_PROGRAM: &str = "weir_way_out";
/// The name of the one that takes their answers.
pub(crate) const WAY_BACK_PROGRAM: &str = "weir_way_back";
/// The ways, by the marks of sockets.
pub(crate) const WAYS: &str = "WAYS";
/// The conversations that took one.
pub(crate) const WAY_FLOWS: &str = "WAY_FLOWS";
const LINK_PREFIX: &str = "link-";
/// Stands for a dot, which no pin's name may have (linux kernel/bpf/inode.c, bpf_lookup) and VLAN interfaces do. No interface's name has this
/// character: the kernel takes it for a pattern.
const DOT: char = '%';

/// Under which name a pin waits to replace `name`.
pub(crate) fn replacement(name: &str) -> String {
    format!("{name}-new")
}

/// The name of an interface's link.
pub(crate) fn link(interface: &str) -> String {
    format!("{LINK_PREFIX}{}", interface.replace('.', &DOT.to_string()))
}

/// The interface whose link has this name.
pub(crate) fn interface_of_link(name: &str) -> Option<String> {
    Some(name.strip_prefix(LINK_PREFIX)?.replace(DOT, "."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_of_a_vlan_interface_has_no_dot_and_leads_back() {
        assert_eq!(link("eth0.100"), "link-eth0%100");
        assert_eq!(interface_of_link("link-eth0%100").as_deref(), Some("eth0.100"));
        assert_eq!(interface_of_link("FLOWS"), None);
    }
}
